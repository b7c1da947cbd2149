"""What every crew promises; a crew's own test file inherits this and says how to make one."""

import os
import signal
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metantk_nas.errors import RunError, SpaceError
from metantk_nas.experiment.workers import MAX_DEATHS, AbstractCrew, Note, Recipe
from metantk_nas.spaces.load import load_space


@dataclass(frozen=True)
class Square:
    """A job with a harmless answer."""

    number: int

    @property
    def title(self) -> str:
        return f"square of {self.number}"

    def __call__(self) -> int:
        return self.number**2


@dataclass(frozen=True)
class Deadly(Square):
    """Kills its worker, as often as the file does not have a line for it yet.

    Args:
        graves: where deaths are counted.
        n_deaths: how many there are to be.
    """

    graves: str
    n_deaths: int

    def __call__(self) -> int:
        with Path(self.graves).open("a+") as file:
            file.seek(0)
            if len(file.readlines()) < self.n_deaths:
                file.write(f"{os.getpid()}\n")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__()


@dataclass(frozen=True)
class Failing(Square):
    """Raises an error: one of the package, which says what to do, or any other."""

    is_known: bool

    def __call__(self) -> int:
        if self.is_known:
            load_space("dart")
        raise KeyError("lost its key")


@dataclass(frozen=True)
class Reading(Square):
    """Reads a variable of its worker's environment."""

    variable: str

    def __call__(self) -> Any:
        return os.environ[self.variable]


def does_what_the_job_says() -> Callable[[Any], Any]:
    """A recipe."""
    return _do


def _do(job: Any) -> Any:
    return job()


def work_off(crew: AbstractCrew[Any, Any], jobs: list[Any]) -> dict[Any, list[Any]]:
    """Let a crew do jobs, as many at a time as it can; the answers by job."""
    waiting, n_open = list(jobs), 0
    answers: dict[Any, list[Any]] = {}
    while waiting or n_open:
        while waiting and crew.is_free:
            crew.begin(waiting.pop(0))
            n_open += 1
        for job, answer in crew.finish():
            answers.setdefault(job, []).append(answer)
            n_open -= 1
    return answers


class CrewContract:
    """Subclasses say how a crew is made of a recipe and a note."""

    n_hands = 2

    @staticmethod
    @abstractmethod
    def make(recipe: Recipe[Any, Any], note: Note) -> AbstractCrew[Any, Any]:
        """Make a crew of `n_hands`."""

    @pytest.fixture(scope="class")
    @classmethod
    def crew(cls) -> Iterator[AbstractCrew[Any, Any]]:
        made = cls.make(does_what_the_job_says, pytest.fail)
        yield made
        made.close()

    def test_every_job_is_answered_once(self, crew: AbstractCrew[Any, Any]) -> None:
        jobs = [Square(number) for number in range(9)]
        assert work_off(crew, jobs) == {job: [job.number**2] for job in jobs}
        assert crew.is_free

    def test_it_begins_as_many_jobs_as_it_has_hands(self, crew: AbstractCrew[Any, Any]) -> None:
        assert crew.n_hands == self.n_hands
        for number in range(self.n_hands):
            assert crew.is_free
            crew.begin(Square(number))
        assert not crew.is_free
        done = crew.finish()
        assert crew.is_free
        while len(done) < self.n_hands:
            done += crew.finish()
        assert sorted(answer for _, answer in done) == [number**2 for number in range(self.n_hands)]

    def test_an_error_is_raised_where_the_job_came_from(self, crew: AbstractCrew[Any, Any]) -> None:
        crew.begin(Failing(1, is_known=True))
        with pytest.raises(SpaceError, match="Did you mean 'darts'"):
            crew.finish()
        crew.begin(Failing(1, is_known=False))
        with pytest.raises((KeyError, RuntimeError), match="lost its key"):
            crew.finish()
        assert work_off(crew, [Square(3)]) == {Square(3): [9]}, "it goes on with other jobs"

    def test_an_error_of_the_recipe_is_raised_too(self) -> None:
        crew = self.make(partial(load_space, "dart"), pytest.fail)
        crew.begin(Square(1))
        with pytest.raises(SpaceError, match="Did you mean 'darts'"):
            crew.finish()
        crew.close()

    def test_it_may_be_closed_with_jobs_in_hand_and_again(self) -> None:
        crew = self.make(does_what_the_job_says, pytest.fail)
        crew.begin(Square(1))
        crew.close()
        crew.close()


class MortalCrewContract(CrewContract):
    """For crews whose workers may die."""

    def test_a_job_on_which_a_worker_dies_is_done_again(self, tmp_path: Path) -> None:
        notes: list[str] = []
        crew = self.make(does_what_the_job_says, notes.append)
        jobs = [Square(1), Deadly(2, str(tmp_path / "graves"), n_deaths=1), Square(3), Square(4)]
        assert work_off(crew, jobs) == {job: [job.number**2] for job in jobs}
        crew.close()
        assert len(notes) == 1
        assert "A worker died (" in notes[0]
        assert "at square of 2; another one does it again." in notes[0]

    def test_a_job_that_kills_every_worker_ends_with_advice(self, tmp_path: Path) -> None:
        notes: list[str] = []
        crew = self.make(does_what_the_job_says, notes.append)
        graves = tmp_path / "graves"
        with pytest.raises(RunError, match=r"died 3 times in a row \(.*\) on the same square of 2\..*--memory"):
            work_off(crew, [Square(1), Deadly(2, str(graves), n_deaths=99), Square(3)])
        crew.close()
        assert len(notes) == MAX_DEATHS - 1
        assert len(graves.read_text().splitlines()) == MAX_DEATHS

    def test_a_worker_that_died_idle_is_replaced(self, tmp_path: Path) -> None:
        notes: list[str] = []
        crew = self.make(_pid_recipe, notes.append)
        victims = work_off(crew, [Square(number) for number in range(self.n_hands)])
        for (pid,) in victims.values():
            os.kill(pid, signal.SIGKILL)
        jobs = [Square(number) for number in range(4)]
        after = work_off(crew, jobs)
        crew.close()
        assert {pid for (pid,) in after.values()}.isdisjoint(pid for (pid,) in victims.values())


def _pid_recipe() -> Callable[[Any], int]:
    return _pid


def _pid(job: Any) -> int:
    return os.getpid()
