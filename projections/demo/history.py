"""Commits to replay: from a repository, from a file, or made up; and a sentence that says which."""

from __future__ import annotations

import io
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zstandard

from logstore.errors import InvalidArgument

__all__ = ["Commit", "History", "load_history"]

APPLICATION_PARTS: Final = 3  # as in a monorepo: team/application/environment
PATHS_MAX: Final = 40  # a commit that touches more is a move of files, not a change of applications
COMMITS_MIN: Final = 300  # fewer make no demo worth watching
OWN_COMMITS: Final = 1_000
SEED: Final = 8
_FIELDS: Final = "%x00%H%x1f%at%x1f%an%x1f%s"
_CHECKOUT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, and the applications that it touches."""

    hash: str
    time: int
    author: str
    subject: str
    applications: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """Commits, oldest first, and where they come from, in words."""

    commits: tuple[Commit, ...]
    told: str


def load_history(repo: str | None, file: str | None, commits_max: int | None) -> History:
    """Return the history asked for; by default that of this checkout. A short one is topped up, and says so.

    Raises InvalidArgument when there is no such repository or file, or it holds something else.
    """
    if repo is not None and file is not None:
        raise InvalidArgument("give --repo or --input, not both")
    if file is not None:
        commits, told = _of_file(Path(file)), f"commits of {Path(file).name}"
    elif repo is not None:
        commits, told = _of_repository(Path(repo)), f"commits of the repository {Path(repo).resolve().name}"
    elif (_CHECKOUT / ".git").exists():
        commits, told = _of_repository(_CHECKOUT), "commits of this checkout"
    else:
        commits, told = [], "commits (no checkout here)"
    own = repo is None and file is None
    commits = commits if commits_max is None else commits[:commits_max]
    wanted = commits_max or (OWN_COMMITS if own else COMMITS_MIN)
    made = list(_made_up(wanted - len(commits), commits))
    told = f"{len(commits)} {told}" + (f", topped up with {len(made)} generated ones (seed {SEED})" if made else "")
    return History((*commits, *made), told)


def _of_repository(path: Path) -> list[Commit]:
    command = ["git", "-C", str(path), "log", "--reverse", "--no-merges", "--name-only", f"--format={_FIELDS}"]
    try:
        log = subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace")
    except FileNotFoundError as error:
        raise InvalidArgument("git is not installed; use --input") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise InvalidArgument(f"not a repository with commits path={path.name} git={said[:120]!r}") from error
    commits = []
    for record in log.split("\0")[1:]:
        head, _, names = record.partition("\n")
        hash_, time, author, subject = head.split("\x1f", 3)
        commits.append(_commit(hash_, int(time), author, subject, names.split("\n")))
    return [commit for commit in commits if commit.applications]


def _of_file(path: Path) -> list[Commit]:
    try:
        with path.open("rb") as raw:
            stream: Any = zstandard.ZstdDecompressor().stream_reader(raw) if path.suffix == ".zst" else raw
            with io.TextIOWrapper(stream, "utf-8") as lines:
                return [_of_line(number, line) for number, line in enumerate(lines, 1)]
    except (OSError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise InvalidArgument(f"cannot be read file={path.name} cause={error}") from error


def _of_line(number: int, line: str) -> Commit:
    try:
        match json.loads(line):
            case {
                "hash": str(hash_),
                "time": int(time),
                "author": str(author),
                "subject": str(text),
                "paths": [*paths],
            }:
                return _commit(hash_, time, author, text, [str(path) for path in paths])
    except ValueError:
        pass
    raise InvalidArgument(f"not a commit line={number}; a line is an object with hash, time, author, subject, paths")


def _commit(hash_: str, time: int, author: str, subject: str, paths: list[str]) -> Commit:
    applications = dict.fromkeys("/".join(path.split("/")[:APPLICATION_PARTS]) for path in paths if path)
    return Commit(hash_, time, author, subject, tuple(name[:200] for name in applications)[:PATHS_MAX])


def _made_up(count: int, before: list[Commit]) -> Iterator[Commit]:
    """Commits as a monorepo of services has them: most touch one application, a few touch many."""
    rng = random.Random(SEED)
    time = before[-1].time if before else 1_700_000_000
    teams = [f"team-{n}" for n in range(6)]
    services = [f"{rng.choice(teams)}/service-{n:02d}" for n in range(40)]
    for _ in range(count):
        time += rng.randrange(30, 7_200)
        touched = rng.sample(services, rng.choices((1, 2, 3, 12), (70, 18, 9, 3))[0])
        places = tuple(f"{service}/{rng.choice(('dev', 'stg', 'prod'))}" for service in touched)
        what = rng.choice(("Raise the memory limit", "Update the image", "Mend the probe", "Add a replica"))
        hash_ = rng.randbytes(20).hex()
        yield Commit(hash_, time, f"dev-{rng.randrange(12)}", f"{what} of {touched[0]}", places)
