"""What a run leaves in the folder of its cell."""

import pytest

from tests.experiments.comparison.made_up import CLASSES, save

# Rows are the truth; palm: 6 right of 6 + 2 + 2, road: 3 of 3 + 2 + 5.
CONFUSION = [[10, 0, 3], [0, 6, 2], [0, 2, 3]]
HISTORY = """\
iteration,loss,st_px,validation/mIoU
5,1.5,10,
10,1.2,20,0.25
20,1.1,,0.45
"""


@pytest.fixture
def trained(tmp_path):
    """What a run leaves that was evaluated twice, the first time without a score."""
    last = {"iteration": 20, "score": 0.45, "confusion": CONFUSION}
    save(
        tmp_path,
        "summary.json",
        {"state": "completed", "classes": CLASSES, "last": last, "best": None, "warnings": []},
    )
    save(tmp_path, "config.json", {"environment": {"platform": "Linux"}})
    (tmp_path / "history.csv").write_text(HISTORY, encoding="utf-8")
    (tmp_path / "final_model.pth").write_bytes(b"")
    return tmp_path
