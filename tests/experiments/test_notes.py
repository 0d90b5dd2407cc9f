"""Notes on many inputs."""

from experiments.notes import Notes


def test_a_note_is_said_once_and_then_counted(capsys):
    notes = Notes()
    notes.say("a", "no CRS")
    notes.say("b", "too dark")
    notes.say("c", "no CRS")
    assert capsys.readouterr().out.splitlines() == ["a: no CRS", "b: too dark"]
    notes.finish()
    assert capsys.readouterr().out.splitlines() == ["2 inputs, a to c: no CRS"]
