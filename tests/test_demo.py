"""The demo, small: real processes, a real kill, and a verdict that notices when a promise is broken."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import zstandard

from logstore import InvalidArgument
from projections.demo.history import COMMITS_MIN, load_history
from projections.demo.ledger import ACKNOWLEDGED, Ledger, Name, Record
from projections.demo.verdict import judge_reading, judge_settled_order
from projections.demo.workload import shares


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "projections.cli", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def commit_lines(count: int) -> str:
    commits = (
        {"hash": f"{n:040x}", "time": n, "author": "a", "subject": "s", "paths": [f"team/app-{n % 9}/prod"]}
        for n in range(count)
    )
    return "".join(json.dumps(commit) + "\n" for commit in commits)


def test_a_small_demo_keeps_its_promises(tmp_path: Path) -> None:
    """Four writers, one killed and restarted, a following and a cold reader, in a directory of our choice."""
    file = tmp_path / "commits.jsonl.zst"
    file.write_bytes(zstandard.compress(commit_lines(60).encode()))
    done = demo(str(tmp_path / "log"), "--input", str(file), "--commits", "60", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    outcome = json.loads(done.stdout)
    assert outcome["kept"]
    assert outcome["acknowledged"] == 60 * 4 + 9
    assert outcome["killed_after"] >= 1
    assert outcome["cold"]["count"] == outcome["acknowledged"] + outcome["stored_unacknowledged"] + 1
    assert all(promise["kept"] for promise in outcome["promises"])
    assert len(outcome["promises"]) == 7
    assert "60 commits of commits.jsonl.zst: 249 events by 4 writer processes" in done.stderr
    assert (tmp_path / "log" / "store").exists()
    again = demo(str(tmp_path / "log"))
    assert (again.returncode, "there is a log already" in again.stderr) == (2, True)


def test_a_console_shows_the_log_of_a_demo(tmp_path: Path) -> None:
    """While it runs, and afterwards until it is interrupted, which is how it ends."""
    file = tmp_path / "commits.jsonl"
    file.write_text(commit_lines(60))
    command = [
        sys.executable,
        "-m",
        "projections.cli",
        "demo",
        "--input",
        str(file),
        "--commits",
        "60",
        "--serve",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if found := re.match(r"console: (http://127\.0\.0\.1:\d+/)", line):
                with urllib.request.urlopen(found[1], timeout=20) as page:
                    assert "a temporary directory" in page.read().decode()
            if line.startswith("the console goes on"):
                break
        process.send_signal(signal.SIGINT)
        output, complaints = process.communicate(timeout=60)
        assert "console: http" in told
        assert (process.returncode, complaints) == (0, "")
        assert json.loads(output)["kept"]
    finally:
        process.kill()
        process.wait()


def test_a_demo_needs_a_store_that_processes_share() -> None:
    """A store in memory is refused in one line."""
    done = demo("memory://demo")
    assert (done.returncode, done.stderr.splitlines()[-1].startswith("Error: InvalidArgument")) == (2, True)


# Its parts --------------------------------------------------------------------------------------


def test_a_short_history_is_topped_up_and_says_so(tmp_path: Path) -> None:
    """Generated commits are the same each time."""
    file = tmp_path / "commits.jsonl"
    file.write_text(commit_lines(3))
    history = load_history(None, str(file), None)
    assert len(history.commits) == COMMITS_MIN
    assert f"topped up with {COMMITS_MIN - 3} generated ones" in history.told
    assert history == load_history(None, str(file), None)


def test_a_repository_is_replayed(tmp_path: Path) -> None:
    """Applications are the first three parts of the paths that a commit touched."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a/b/c").mkdir(parents=True)
    for name in ("a/b/c/d.txt", "a/b/c/e.txt", "README"):
        (tmp_path / name).write_text(name)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "First"], check=True)
    history = load_history(str(tmp_path), None, 2)
    assert [sorted(commit.applications) for commit in history.commits[:1]] == [["README", "a/b/c"]]
    assert history.told.startswith("1 commits of the repository")


@pytest.mark.parametrize("content", ["{", '{"hash": 1}', "[]"])
def test_a_bad_file_is_refused_by_line(tmp_path: Path, content: str) -> None:
    """A file that holds no commits is the user's mistake, and is told so."""
    file = tmp_path / "commits.jsonl"
    file.write_text(commit_lines(1) + content + "\n")
    with pytest.raises(InvalidArgument, match="line=2"):
        load_history(None, str(file), None)
    with pytest.raises(InvalidArgument, match="not a repository"):
        load_history(str(tmp_path), None, None)


def test_applications_belong_to_one_writer() -> None:
    """A share can be replayed without the others: no application is in two."""
    history = load_history(None, None, 200)
    work = shares(history.commits, 4)
    keys = [{step[1] for deployment in share for step in deployment if step[0] == "Application"} for share in work]
    assert sum(map(len, keys)) == len(set.union(*keys))
    assert all(keys)


def test_a_ledger_is_whole_after_a_kill(tmp_path: Path) -> None:
    """A record that was being written when its process died counts for nothing."""
    ledger = Ledger(tmp_path, 1, 0)
    assert (ledger.count(), list(ledger.records())) == (0, [])
    record = Record(ACKNOWLEDGED, 7, 3, 1)
    ledger.note(record)
    with ledger.path.open("ab") as file:
        file.write(b"\x01\x00")
    assert (ledger.count(), list(ledger.records())) == (1, [record])


def test_a_verdict_notices_every_kind_of_lie() -> None:
    """Missing, doubled, out of order, stored though refused; each breaks the promise that it is about."""
    a, b, c = Name(0, 0, 0), Name(0, 0, 1), Name(1, 0, 0)

    def broken(read: list[Name], *refused: Name) -> list[int]:
        promises, _ = judge_reading("r", {a, b}, set(refused), read)
        return [index for index, promise in enumerate(promises) if not promise.kept]

    assert broken([a, b]) == []
    assert broken([a]) == [0]
    assert broken([a, b, b]) == [0, 1]
    assert broken([b, a]) == [1]
    assert broken([a, b, c], c) == [2]
    assert judge_reading("r", {a}, set(), [a, b, c])[1] == 2
    fine = {"digest": "x", "count": 1, "out_of_order": 0}
    assert judge_settled_order(fine, fine).kept
    for lie in ({"digest": "y"}, {"count": 2}, {"out_of_order": 1}):
        assert not judge_settled_order(fine, {**fine, **lie}).kept
