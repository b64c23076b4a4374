"""What the command line refuses before anything is loaded."""

import pytest
from transformers import Wav2Vec2Config

from ser_model import __version__
from ser_model.__main__ import main
from ser_model.hub import HubError


@pytest.mark.parametrize("source", ["/no/such/folder", "./absent", "~/absent", "runs/of/mine"])
def test_a_folder_that_is_not_there_is_called_so(source, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "examples", "--model", source])
    assert str(ended.value) == f"python -m ser_model: no model at {source}: there is no such folder"


def test_without_a_checkout_a_model_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("ser_model.__main__.DEFAULT_MODEL", tmp_path / "absent")
    with pytest.raises(
        SystemExit, match="no checkpoint lies beside this package; give --model, a folder of train.py's"
    ):
        main(["predict", "examples"])


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "examples", "--model", "ours/model"],
        ["timeline", "examples", "--model", "ours/model", "--output-dir", "absent"],
        ["export", "ours/model", "model.onnx"],
        ["draw", "ours/model", "--output", "net.svg"],
    ],
)
def test_a_revision_is_what_is_loaded(command, monkeypatch):
    def load(_, source, **options):
        raise HubError(f"{source} at {options['revision']}")

    monkeypatch.setattr("ser_model.__main__.load_pretrained", load)
    with pytest.raises(SystemExit, match="ours/model at v1.0"):
        main([*command, "--revision", "v1.0"])


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"ser_model {__version__}\n"


@pytest.mark.parametrize("depth", ["0", "-1", "two", "1.5"])
def test_a_depth_that_opens_nothing_is_refused(depth, capsys):
    with pytest.raises(SystemExit):
        main(["draw", "configs/ravdess_cnn.yaml", "--output", "net.svg", f"--depth={depth}"])
    assert f"'{depth}' is no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-2"])
def test_no_processes_to_measure_with_are_refused(number, capsys):
    with pytest.raises(SystemExit):
        main(["explore", "--config=x.yaml", "--data-dir=.", "--output=out", f"--num-proc={number}"])
    assert f"'{number}' is no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["card", "likeness"])
def test_a_folder_without_a_finished_run_is_named(command, tmp_path):
    more = ["--data-dir", str(tmp_path)] if command == "likeness" else []
    with pytest.raises(SystemExit, match=f"no metrics.json in {tmp_path}; give the output folder of train.py"):
        main([command, str(tmp_path), *more])


@pytest.mark.parametrize("error", [RuntimeError(), RuntimeError("no such device\nand a long trace")])
def test_a_device_that_is_not_there_ends_in_a_sentence(error, monkeypatch, capsys):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("torch.empty", refuse)
    with pytest.raises(SystemExit):
        main(["predict", "examples", "--device", "cuda:9"])
    said = str(error).splitlines()[0] if str(error) else "RuntimeError"
    assert f"'cuda:9' is not there ({said}); take cpu" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "says"), [("{", "is damaged"), ("{}", "holds no figures of a test part")])
def test_figures_that_are_none_are_refused(text, says, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(SystemExit, match=says):
        main(["card", str(tmp_path)])


def test_where_figures_cannot_go_is_said_before_they_are_worked_out(tmp_path):
    where = ["--config", "configs/ravdess_tess_cnn.yaml", "--data-dir", str(tmp_path)]
    with pytest.raises(SystemExit, match=f"there is no folder {tmp_path}/absent to write x.json to"):
        main(["evaluate", "checkpoints/ser-cnn-8", *where, "--output", str(tmp_path / "absent" / "x.json")])


def test_ctrl_c_ends_in_a_word(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ser_model.__main__.load_settings", interrupt)
    assert main(["explore", "--config", "x.yaml", "--data-dir", ".", "--output", "out"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    "command",
    [
        ["predict", ""],
        ["predict", "examples", "--output", ""],
        ["timeline", "examples", "--output-dir", ""],
        ["explore", "--config=x.yaml", "--data-dir=.", "--output="],
        ["evaluate", "checkpoints/ser-cnn-8", "--config=", "--data-dir=."],
        ["predict", "examples", "--device", "meta"],
    ],
)
def test_an_empty_path_and_a_device_that_computes_nothing_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        main(command)
    said = capsys.readouterr().err
    assert "an empty path came; name a file or a folder" in said or "'meta' computes nothing; take cpu" in said


@pytest.mark.parametrize("option", ["--output", "--predictions"])
def test_a_folder_in_place_of_a_file_is_refused_before_hours_of_evaluation(option, tmp_path):
    command = ["evaluate", "checkpoints/ser-cnn-8", "--config=configs/ravdess_tess_cnn.yaml", "--data-dir=data"]
    with pytest.raises(SystemExit, match="is a folder; name a file to write"):
        main([*command, option, str(tmp_path)])


def test_a_model_of_another_kind_is_called_so(tmp_path):
    Wav2Vec2Config().save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="is a model of the kind 'wav2vec2'; this works with those of train.py alone"):
        main(["export", str(tmp_path), str(tmp_path / "model.onnx")])
