from types import SimpleNamespace

from afterglow.loggers.artifacts import log_files, use_inputs


class Recorder(SimpleNamespace):
    """A run that keeps the artifacts that are logged to it."""

    def __init__(self):
        super().__init__(id="abc", name="a run", logged=[])

    def log_artifact(self, artifact, aliases, **options):
        self.logged.append((artifact.name, artifact.type, sorted(artifact.manifest.entries), aliases, options))

    _log_artifact = log_artifact


def test_files_and_folders_are_one_artifact_of_the_run(tmp_path):
    for name in ("last.ckpt", "unet/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    run = Recorder()
    log_files(run, "pipeline", "model", [tmp_path])
    assert run.logged == [("a_run-pipeline", "model", ["last.ckpt", "unet/config.json"], ["latest", "abc"], {})]


def test_inputs_that_a_folder_lacks_are_left_out(tmp_path):
    (tmp_path / "emergence.json").write_text("{}")
    run = Recorder()
    use_inputs(run, tmp_path, "plants", "measurements")
    assert [(name, files) for name, _, files, _, _ in run.logged] == [("a_run-measurements", ["emergence.json"])]
    assert run.logged[0][-1]["use_after_commit"]
