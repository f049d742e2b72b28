"""Logs as they come out of spreadsheets and loops: read as meant, or refused by what was found."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.ingredients.training_run import read_log

ROWS = [(100, 0.5, 1.25), (200, 2.0, 0.75)]


def text(header="examples,sigma,loss", separator=","):
    return "\n".join([header, *(separator.join(map(str, row)) for row in ROWS)]) + "\n"


@pytest.mark.parametrize("name", ["log.csv", "log.txt"])
@pytest.mark.parametrize(
    "content",
    [
        text().encode("utf-8-sig"),
        text().encode("utf-16"),
        text(" Examples , SIGMA,Loss ").encode(),
        text('"examples","sigma","loss"').encode(),
        text("examples;sigma;loss", ";").encode("utf-8-sig"),
        text("Examples\tSigma\tLoss", "\t").encode(),
        text().replace("\n", "\r\n").encode(),
        b",examples,sigma,loss\n0,100,0.5,1.25\n1,200,2.0,0.75\n",  # an index without a name
        b"examples,sigma,loss,\n100,0.5,1.25,\n200,2.0,0.75,\n",
        b"examples, sigma, loss\n100, 0.5, 1.25\n\n200, 2.0, 0.75\n",
    ],
    ids=["bom", "utf16", "capitals", "quotes", "semicolons", "tabs", "crlf", "index", "trailing", "spaces"],
)
def test_headers_are_read_as_they_are_meant(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = read_log(tmp_path / name)
    for i, column in enumerate(("examples", "sigma", "loss")):
        np.testing.assert_array_equal(found[column], [row[i] for row in ROWS])
    assert set(found) == {"examples", "sigma", "loss"}


def test_optional_columns_are_known_in_any_case(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(text("examples,sigma,loss,Learning Rate").replace("1.25", "1.25,0.1").replace("0.75", "0.75,0.1"))
    np.testing.assert_array_equal(read_log(path)["learning_rate"], [0.1, 0.1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("examples,sigma,loss,loss\n1,2,3,4\n", r"column 'loss' twice \('loss' and 'loss'\)"),
        ("examples,sigma,Loss, loss\n1,2,3,4\n", r"column 'loss' twice \('Loss' and ' loss'\)"),
        ("examples,sigma,loss,run,run\n1,2,3,4,5\n", "column 'run' twice"),
        ("examples,sigma,loss\n1,2,-0.5\n", r"line 2: 'loss' is -0\.5; .*not its logarithm"),
        ("examples,sigma,loss\n1,2,0,5\n", "line 2 has 4 entries for 3 columns; write decimal points"),
        ("examples;sigma;loss\n1;2;0,5\n", r"line 2: 'loss' is '0,5', not a number \(write decimal points\)"),
        ("examples,sigma,train_loss\n1,2,3\n", "'loss' is missing; .*found: 'examples', 'sigma', 'train_loss'. Rename"),
        ("examples,sigma,Val Loss\n1,2,3\n", r"Rename 'val_loss' to 'loss', and .*LogReading\('validation'\)"),
        ("step|sigma|loss\n1|2|3\n", r"'examples' is missing; .*found: 'step\|sigma\|loss'"),
        ("\n1,2,3\n", "'examples' is missing; .*found: no column"),
        ("", "no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_what_was_found(tmp_path, content, words):
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_log(tmp_path / "log.csv")


def test_text_of_another_encoding_is_named(tmp_path):
    (tmp_path / "log.csv").write_bytes("examples,sigma,loss,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_log(tmp_path / "log.csv")


def test_lines_of_json_hold_each_name_once_and_in_any_case(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"Examples": 1, " sigma": 2, "Loss": 3}\n')
    assert read_log(path)["loss"].tolist() == [3.0]
    path.write_text('{"examples": 1, "sigma": 2, "loss": 3, "loss": 4}\n')
    with pytest.raises(ValueError, match="line 1 has column 'loss' twice"):
        read_log(path)
    path.write_text('{"examples": 1, "sigma": 2, "loss": -3}\n')
    with pytest.raises(ValueError, match="line 1: 'loss' is -3"):
        read_log(path)


def test_the_recorder_refuses_negative_losses_and_no_other_batch(tmp_path):
    stats = co.LevelStatistics([0.1, 1.0, 10.0])
    stats.record(np.array([0.5, 2.0]), np.array([1.0, 2.0]))
    stats.record(np.array([0.5, 2.0]), np.array([1.0, -2.0]))
    with pytest.raises(ValueError, match="record: loss is -2; "):
        stats.rows()
    assert sum(row["examples"] for row in stats.rows()) == 2


def test_a_recorders_log_that_went_through_a_spreadsheet_is_gone_on_from(tmp_path):
    path, edges = tmp_path / "log.csv", [0.1, 1.0, 10.0]
    stats = co.LevelStatistics(edges, run="01")
    stats.record(np.array([0.5, 2.0]), np.array([1.0, 2.0]))
    stats.save(path)
    path.write_bytes(path.read_text().replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"))
    assert co.LevelStatistics.resume(path, edges, run="01").examples == 2
