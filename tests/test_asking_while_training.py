"""A person saves ``to_label.csv`` while a training runs: nothing that was filled in is lost."""

import pytest

from dynal_fast.experiment import run_grid
from dynal_fast.experiment.asking.desk import Desk
from tests.cases.asking import asked, asking_config, fill_in, write_texts

pytestmark = pytest.mark.usefixtures("one_thread")


def not_asked_for(run):
    """Two samples of the pool that are not in the request."""
    names = {row["text_id"] for row in asked(run)}
    return [f"t{i}" for i in range(39, 8, -1) if f"t{i}" not in names][:2]


def save_once(run, change):
    """Return an ``on_epoch`` that saves the request while the training runs, as a person does."""
    saves = iter([change])

    def on_epoch(*progress):
        for each in saves:
            path = run / "to_label.csv"
            path.write_text(each(path.read_text(encoding="utf-8-sig")), encoding="utf-8")

    return on_epoch


def test_labels_that_are_saved_while_it_trains_are_not_lost(tmp_path):
    """One that was changed meanwhile, one that is new, and one for a sample asked for next."""
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), tmp_path / "twin")
    fill_in(tmp_path / "twin")
    run_grid(asking_config(options), tmp_path / "twin")
    coming = asked(tmp_path / "twin")[0]["text_id"]
    run_grid(asking_config(options), run)
    fill_in(run)
    changed, added = (name for name in not_asked_for(run) if name != coming)
    with open(run / "to_label.csv", "a", encoding="utf-8") as file:
        file.write(f"{changed},só-so,,,,,\n")

    def save(text):
        wrong = f"{changed},só-so,"
        assert wrong in text
        more = f'{added},só-so,,,,,\n{coming},"bad, very",,,,,\n'
        return text.replace(wrong, f'{changed},"bad, very",') + more

    run_grid(asking_config(options), run, on_epoch=save_once(run, save))
    rows = {row["text_id"]: row["label"] for row in asked(run)}
    assert rows[changed] == rows[coming] == "bad, very"
    assert rows[added] == "só-so"
    assert [row["text_id"] for row in asked(run)].index(coming) == 0


@pytest.mark.parametrize(
    ("cut", "message"), [(-20, "fields, the header has|unexpected end"), (0, "holds no table")]
)
def test_a_request_that_is_half_saved_while_it_trains_is_kept(tmp_path, cut, message):
    """The error names the file, which stays; the trainings are not repeated."""
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    fill_in(run)
    whole = (run / "to_label.csv").read_bytes()
    half = whole.decode("utf-8-sig")[:cut]
    with pytest.raises(ValueError, match=rf"to_label\.csv.*({message})"):
        run_grid(asking_config(options), run, on_epoch=save_once(run, lambda text: half))
    assert (run / "to_label.csv").read_text(encoding="utf-8") == half
    (run / "to_label.csv").write_bytes(whole)
    trained = []
    run_grid(asking_config(options), run, on_epoch=lambda *progress: trained.append(progress))
    assert trained == []
    assert not {row["text_id"] for row in asked(run)} & {
        line.split(",")[0] for line in whole.decode("utf-8-sig").splitlines()[1:]
    }


def test_a_save_at_the_moment_of_writing_is_read_again(tmp_path, monkeypatch):
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    fill_in(run)
    added, _ = not_asked_for(run)
    table = Desk._request_table

    def while_a_person_saves(self, *arguments):
        monkeypatch.setattr(Desk, "_request_table", table)
        with open(run / "to_label.csv", "a", encoding="utf-8") as file:
            file.write(f"{added},só-so,,,,,\n")
        return table(self, *arguments)

    monkeypatch.setattr(Desk, "_request_table", while_a_person_saves)
    run_grid(asking_config(options), run)
    assert {row["text_id"]: row["label"] for row in asked(run)}[added] == "só-so"
