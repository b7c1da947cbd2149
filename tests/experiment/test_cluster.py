"""A Ray cluster of two workers on this machine: the same ranking, whatever happens to them, and nothing left behind."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment import cluster
from metantk_nas.experiment.cluster import RayCrew, _how, _room
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.tasks import Item, Task, compute
from metantk_nas.experiment.workbench import Workbench
from tests.contracts.crew import MortalCrewContract, Reading, Square, does_what_the_job_says, work_off
from tests.experiment.stubs import genotypes
from tests.small_search import SMALL, command

ON_RAY = {**SMALL, "engine": "ray", "ray_workers": 2, "chunk": 2}


@pytest.mark.usefixtures("ray_cluster")
class TestRayCrew(MortalCrewContract):
    @staticmethod
    def make(recipe, note):
        return RayCrew(recipe, note, n_workers=2)


def without_seconds(ranking):
    return ranking.frame.drop(columns="seconds").to_csv()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The ranking that one process makes."""
    out = tmp_path_factory.mktemp("alone")
    return without_seconds(metantk_nas.search(out=out, device="cpu", **{**SMALL, "chunk": 2}))


def killed_once(grave):
    """Workers of which one is killed with -9: whoever first begins a second job."""

    class KilledOnce(cluster._Hand):
        n_begun = 0

        def answer(self, job):
            self.n_begun += 1
            if self.n_begun == 2:
                with suppress(FileExistsError), grave.open("x"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().answer(job)

    return KilledOnce


def test_a_ranking_survives_kill_9_and_is_that_of_one_process(tmp_path, monkeypatch, ray_cluster, alone):
    monkeypatch.setattr(cluster, "_Hand", killed_once(grave=tmp_path / "grave"))
    notes = []
    ranking = metantk_nas.search(out=tmp_path / "run", note=notes.append, **ON_RAY)
    assert len(notes) == 1, notes
    assert "A worker died (on " in notes[0]
    assert "its worker process has died) at 2 architectures" in notes[0]
    assert without_seconds(ranking) == alone
    assert ranking.manifest["spec"]["engine"] == "ray"
    assert ranking.manifest["versions"]["ray"] == ray_cluster.__version__
    assert ray_cluster.is_initialized(), "it was not the search that connected"


class StopError(Exception):
    """The user had enough."""


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_goes_on_where_one_process_stopped_and_the_other_way_round(tmp_path, alone):
    def stop(label, done, total):
        if label == "scoring" and done >= 4:
            raise StopError

    local = {**SMALL, "device": "cpu", "chunk": 2}
    for name, first, second in (("here", local, ON_RAY), ("there", ON_RAY, local)):
        with pytest.raises(StopError):
            metantk_nas.search(out=tmp_path / name, progress=stop, **first)
        assert without_seconds(metantk_nas.search(out=tmp_path / name, **second)) == alone


def test_a_parcel_needs_no_file_of_the_machine_it_came_from(tmp_path):
    rng = np.random.default_rng(0)
    for label in range(18):
        (tmp_path / "photos" / f"class{label:02}").mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"class{label:02}" / f"{index}.png")
    source = Path(metantk_nas.__file__).parents[1] / "search_spaces" / "nas_bench_201.toml"
    space = shutil.copy(source, tmp_path / "mine.toml")
    files = {"space": str(space), "data": str(tmp_path / "photos")}
    here = Workbench.of(SearchSpec(**{**SMALL, **files, "engine": "ray", "metrics": "params,naswot,ridge_accuracy"}))
    text = here.space.format(genotypes(here, 1)[0])
    recipe = pickle.dumps(here.parcel)
    expected = [scores_of(here, scorer.name, text) for scorer in here.scorers]
    shutil.rmtree(tmp_path / "photos")
    space.unlink()
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    there = pickle.loads(recipe)()
    assert [scores_of(there, scorer.name, text) for scorer in there.scorers] == expected
    assert len(there.dataset.base.classes) > len(there.dataset.novel.classes) == 0, "what is not needed stays here"


def scores_of(bench, scorer, text):
    return [score.values for score in compute(bench, Task(scorer, 1, (Item("key", text, 1.0),)))]


def test_two_workers_share_a_gpu(ray_cluster):
    crew = RayCrew(does_what_the_job_says, pytest.fail, gpus_per_worker=0.5)
    assert crew.n_hands == 2, "as many as there is room for"
    jobs = [Reading(number, "CUDA_VISIBLE_DEVICES") for number in range(3)]
    assert work_off(crew, jobs) == {job: ["0"] for job in jobs}
    crew.close()


def test_a_worker_without_room_joins_when_there_is_some(ray_cluster):
    class Blocker:
        """Holds a core."""

    notes = []
    others = [ray_cluster.remote(num_cpus=1)(Blocker).remote() for _ in range(4)]
    ray_cluster.get([other.__ray_ready__.remote() for other in others])
    patience = pytest.MonkeyPatch()
    patience.setattr("metantk_nas.experiment.cluster.PATIENCE", 0.5)
    crew = RayCrew(does_what_the_job_says, notes.append, n_workers=3)
    leaver = Thread(target=lambda: (time.sleep(1.5), [ray_cluster.kill(other) for other in others]))
    leaver.start()
    assert work_off(crew, [Square(number) for number in range(4)]) == {Square(n): [n * n] for n in range(4)}
    leaver.join()
    crew.close()
    patience.undo()
    assert len(notes) == 1
    assert notes[0] == (
        "No worker has begun yet: a worker needs 1 core and 0 of a GPU, and the cluster has 4 and 1 in all; waiting."
    )


def test_room_is_counted_machine_by_machine():
    machines = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
    ]
    cluster = SimpleNamespace(nodes=lambda: machines)
    assert _room(cluster, 0.0) == 12
    assert _room(cluster, 1.0) == 2 + 1
    assert _room(cluster, 1 / 3) == 6 + 1, "one core for each"
    assert _room(cluster, 0.6) == 2 + 1, "a share is of one GPU"


def test_what_ray_says_of_a_death_is_told_in_a_few_words():
    lost = "The actor died.\n\tip: 10.0.0.7\nThe actor is dead because its node has died. Node Id: 3f, more"
    absent = "because of an error, (pid=3, ip=10.0.0.7, a=1)\n  ^^^^\nModuleNotFoundError: No module named 'lonely'"
    assert _how(RuntimeError(lost)) == "on 10.0.0.7: its node has died"
    assert _how(RuntimeError(absent)) == "on 10.0.0.7: ModuleNotFoundError: No module named 'lonely'"
    assert _how(RuntimeError("lost")) == "lost"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"engine": "spark"}, "engine 'spark' not found; available: local, ray"),
        ({"engine": "ray", "devices": "cpu,cpu"}, "--devices was given with --engine ray; it goes with --engine local"),
        ({"ray_workers": 2}, "--ray-workers was given with --engine local; it goes with --engine ray"),
        ({"engine": "ray", "ray_workers": 0}, "--ray-workers is 0"),
        ({"engine": "ray", "gpus_per_worker": 1.5}, "--gpus-per-worker is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(UsageError, match=told):
        SearchSpec(**settings)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs ray.*metantk-nas\[ray\]"):
        metantk_nas.search(out=tmp_path, **ON_RAY)


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is in the extra 'ray'")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address, reason in ((f"127.0.0.1:{port}", "Connection refused"), ("somewhere", "Invalid address")):
        with pytest.raises(UsageError, match=f"--address {address}: .*{reason}.*ray start --head"):
            RayCrew(does_what_the_job_says, pytest.fail, address=address)


@pytest.fixture
def _interrupts_are_heard():
    """Background jobs of a shell ignore Ctrl-C, and so would all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_interrupts_are_heard")
def test_ctrl_c_ends_the_cluster_with_the_search(tmp_path):
    pytest.importorskip("ray", reason="Ray is in the extra 'ray'")
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(run, **{**ON_RAY, "chunk": 1, "budget": 3000}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = run / "scores.sqlite-wal"
    for _ in range(2400):
        if log.exists() and log.stat().st_size > 40_000:
            break
        assert process.poll() is None, "the search ended before it could be interrupted"
        time.sleep(0.05)
    assert len(session(process.pid)) > 3
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in told
    assert "Traceback" not in told
    for _ in range(100):
        if not session(process.pid):
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: {session(process.pid)}")


def session(leader):
    """Command lines of the processes in a session, whatever groups they are in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == leader and state != "Z":
                found.append((folder / "cmdline").read_bytes()[:100])
        except OSError:
            continue  # it has ended meanwhile
    return found
