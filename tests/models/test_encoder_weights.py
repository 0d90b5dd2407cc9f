import pytest
import torch
import torchvision

from ignite_salak.models.encoder_weights import in_one_line, load_strictly, no_weights, read_weights


def resnet18():
    return torchvision.models.resnet18(weights=None)


def load(file):
    """Reads a file into a new ResNet-18."""
    network = resnet18()
    load_strictly(network, read_weights(file), "fc.", file, "resnet18")
    return network


def test_old_files_without_batch_counts(tmp_path):
    weights = resnet18().state_dict()
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    network = load(tmp_path / "old.pth")
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])


def test_weights_of_another_shape(tmp_path):
    weights = resnet18().state_dict()
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    torch.save(weights, tmp_path / "gray.pth")
    with pytest.raises(ValueError, match=r"1 of another shape: conv1\.weight"):
        load(tmp_path / "gray.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_state_dict(content, suffix, tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix} cannot be read") as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_checkpoint_that_is_no_state_dict(tmp_path):
    torch.save({"model": {}, "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth are not a state dict"):
        load(tmp_path / "checkpoint.pth")


def test_both_formats_are_read_alike(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = resnet18().state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    safetensors.save_file(weights, tmp_path / "weights.safetensors")
    for file in ("weights.pth", "weights.safetensors"):
        read = read_weights(tmp_path / file)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], weights[key]) for key in weights)


def test_the_classifier_is_neither_needed_nor_loaded(tmp_path):
    given, network = resnet18().state_dict(), resnet18()
    before = network.fc.weight.clone()
    load_strictly(network, given, "fc.", tmp_path / "w.pth", "resnet18")
    assert torch.equal(network.fc.weight, before)
    assert torch.equal(network.conv1.weight, given["conv1.weight"])
    with pytest.raises(ValueError, match=r"w\.pth do not fit 'resnet18': 2 missing: fc\.weight, "):
        del given["fc.weight"], given["fc.bias"]
        load_strictly(network, given, (), tmp_path / "w.pth", "resnet18")


def test_a_long_list_of_problems_is_cut(tmp_path):
    with pytest.raises(ValueError, match="1 unexpected: other") as caught:
        load_strictly(resnet18(), {"other": torch.zeros(1)}, "fc.", tmp_path / "w.pth", "resnet18")
    assert "missing: conv1.weight, bn1.weight, bn1.bias, ...; " in str(caught.value)


@pytest.mark.parametrize(("name", "offline"), [("resnet18", False), ("efficientnet_lite0", True)])
def test_missing_weights_name_the_ways_out(name, offline, assert_offline_message):
    error = no_weights(name, OSError("no route\nto host"))
    assert isinstance(error, FileNotFoundError)
    assert_offline_message(error, name)
    assert "(OSError: no route)" in str(error)
    assert ("ignite-salak[offline]" in str(error)) == offline


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError"),
        (OSError("  \n padded"), "OSError: padded"),
    ],
)
def test_errors_in_one_line(error, line):
    assert in_one_line(error) == line
