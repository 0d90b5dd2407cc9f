"""Lists that the scripts take, of a plantation."""

import pytest

from experiments.console import run_script
from experiments.draw_lists import main
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import split_patches


def photos(path):
    return path.read_text(encoding="utf-8").split()


def test_lists_of_every_draw(shared_plantation, tmp_path, capsys):
    output = tmp_path / "lists"
    flags = ["--draws", "2", "--labeled", "1", "2", "--output", str(output)]
    main(["--data-root", str(shared_plantation.root), *flags])
    index = scan_patches(shared_plantation.root)
    names = {index.source_name(source) for source in set(index.source_ids[index.has_mask].tolist())}
    judged = []
    for draw in ("draw_1", "draw_2"):
        validation, rest, two, one = (
            photos(output / draw / f"{name}.txt")
            for name in ("validation", "labeled_all", "labeled_2", "labeled_1")
        )
        assert {*validation} | {*rest} == names
        assert not {*validation} & {*rest}
        assert {*one} < {*two} == {*rest}
        assert (len(one), len(two)) == (1, 2)
        judged += validation
    assert sorted(judged) == sorted(names)
    said = capsys.readouterr().out
    assert f"{output} holds: draw_1, draw_2" in said
    assert "draw_2/labeled_2" in said


def test_the_lists_split_patches(shared_plantation, tmp_path):
    output = tmp_path / "lists"
    main(["--data-root", str(shared_plantation.root), "--draws", "3", "--output", str(output)])
    index = scan_patches(shared_plantation.root)
    split = split_patches(
        index,
        index.has_mask[:, None] * [[1, 1]],
        labeled_files=output / "draw_3" / "labeled_all.txt",
        val_files=output / "draw_3" / "validation.txt",
    )
    sources = split.sources(index)
    assert sources["validation"] == photos(output / "draw_3" / "validation.txt")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--draws=1"], "--draws 1 is not at least 2"),
        (["--draws=99"], "--draws 99, but only"),
        (["--labeled", "99"], "--labeled 99 is not between 1 and the"),
        (["--labeled-files=none.txt"], "none.txt cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_writes_nothing(
    shared_plantation, tmp_path, capsys, flags, words
):
    output = tmp_path / "lists"
    call = ["--data-root", str(shared_plantation.root), "--output", str(output), *flags]
    assert run_script(main, call) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_lists_that_are_there_are_not_drawn_anew(shared_plantation, tmp_path, capsys):
    call = ["--data-root", str(shared_plantation.root), "--output", str(tmp_path)]
    assert run_script(main, call) == 2
    assert "is there already" in capsys.readouterr().err
