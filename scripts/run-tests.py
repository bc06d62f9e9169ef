#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run-tests.py - run every suite, count what its TAP says, print what failed and one line of sums.

usage: scripts/run-tests.py [--full] [--jobs N] [--list] [name...]

A suite is a program that speaks TAP: each test of the Meson build with sanitizers, each Python script in tests/e2e and
tests/lab (against the plain build) and, with --full, each in tests/full. Suites run side by side, each in a process group
of its own and with a time limit; end-to-end suites before the short ones, so that the longest does not come last; those
that want the machine for themselves after all others, one by one. A suite that dies, lacks its plan or takes too long is one
failure more. HUSK_TEST_COUNTS names a file for the last line.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)(\s*#\s*skip.*)?$", re.I)


class Suite:
    """One program and how it is run. speaks_tap: else its exit status is the one result (77: skipped)."""

    def __init__(self, name, command, timeout, env=None, cwd=TOP, speaks_tap=True, alone=False):
        self.name, self.command, self.timeout, self.alone = name, command, timeout, alone
        self.env, self.cwd, self.speaks_tap = env or {}, cwd, speaks_tap


class Result:
    def __init__(self, suite):
        self.suite, self.passed, self.failed, self.skipped = suite, 0, 0, 0
        self.output, self.seconds, self.failures, self.skips = "", 0.0, [], []

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)


def unit_suites(build):
    """The tests that Meson knows, from the tree with sanitizers."""
    listing = subprocess.run(["meson", "introspect", "--tests", str(build)], check=True, stdout=subprocess.PIPE).stdout
    for test in json.loads(listing):
        # tests/lab runs those that want a /dev/kvm; sandboxes run on any that opens, one that interprets guest code included.
        if any(suite.split(":")[-1] == "kvm" for suite in test.get("suite", ())) and not (
                test["name"].startswith("sandbox-") and os.access("/dev/kvm", os.R_OK | os.W_OK)):
            continue
        env = dict(SANITIZERS)
        env.update(test.get("env") or {})
        yield Suite(test["name"], test["cmd"], test.get("timeout", 30) * 4, env, test.get("workdir") or build,
                    test.get("protocol") == "tap")


def script_suites(folder):
    """Python scripts; among the first ten lines `# timeout: N` sets the limit in seconds, and `# runs alone` says that."""
    for path in sorted((TOP / "tests" / folder).glob("*_test.py")):
        head = path.read_text().splitlines()[:10]
        limits = [int(line.split(":")[1]) for line in head if line.startswith("# timeout:")]
        yield Suite(f"{folder}-" + path.stem.removesuffix("_test").replace("_", "-"), [sys.executable, str(path)],
                    limits[0] if limits else 240, alone=any(line.startswith("# runs alone") for line in head))


def end_group(process):
    """End one process group of ours, politely first: a test cleans up on SIGTERM."""
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def read_tap(result, text):
    """Count the results in @text; True when the plan is there and kept."""
    planned, seen = None, 0
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned = int(plan[1])
            if planned == 0 and plan[2]:
                result.skipped += 1
                result.skips.append(plan[2].strip(" #"))
            continue
        match = RESULT.match(line)
        if line.startswith("Bail out!"):
            result.fail(line)
        if not match:
            continue
        seen += 1
        directive = re.search(r"#\s*(skip|todo)\b.*", match[3], re.I)
        if directive:
            result.skipped += 1
            result.skips.append(match[3].strip(" -"))
        elif match[1]:
            result.fail(match[3].strip(" -"))
        else:
            result.passed += 1
    return planned is not None and planned == seen


def run(suite):
    result = Result(suite)
    begun = time.monotonic()
    environment = {**os.environ, **suite.env}
    process = subprocess.Popen(suite.command, cwd=suite.cwd, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    timed_out = threading.Event()

    def expire():
        timed_out.set()
        end_group(process)

    timer = threading.Timer(suite.timeout, expire)
    timer.start()
    # A child that outlives its suite may hold the pipe: the suite's own end is what counts.
    chunks = []
    reader = threading.Thread(target=lambda: chunks.extend(iter(lambda: process.stdout.read1(65536), b"")), daemon=True)
    reader.start()
    status = process.wait()
    timer.cancel()
    reader.join(5)
    result.output = b"".join(chunks).decode(errors="replace")
    result.seconds = time.monotonic() - begun

    if suite.speaks_tap:
        whole = read_tap(result, result.output)
        if timed_out.is_set():
            result.fail(f"still running after {suite.timeout} s")
        elif not whole:
            result.fail(f"ended before its plan was kept (exit status {status})")
        elif status and not result.failed:
            result.fail(f"exit status {status}")
    elif status == 0:
        result.passed = 1
    elif status == 77:
        result.skipped = 1
    else:
        result.fail(f"exit status {status}")
    return result


def report(result):
    """One line per suite; what went wrong in full below it."""
    verdict = "FAIL" if result.failed else "ok  "
    counts = f"{result.passed} passed" + (f", {result.failed} failed" if result.failed else "") + (
        f", {result.skipped} skipped" if result.skipped else "")
    print(f"{verdict} {result.suite.name:<24} {counts:<36} {result.seconds:6.1f} s", flush=True)
    for skip in result.skips:
        print(f"       skipped: {skip}")
    if not result.failed:
        return
    for failure in result.failures:
        print(f"       failed: {failure}")
    lines = result.output.splitlines()
    shown = [line for line in lines if not line.startswith("ok ")][-120:]
    print("       output:\n" + "\n".join("       | " + line for line in shown), flush=True)


def main():
    parser = argparse.ArgumentParser(description="run the test suites")
    parser.add_argument("--full", action="store_true", help="the long sweeps too")
    parser.add_argument("--jobs", type=int, default=max(2, min(4, os.cpu_count() or 2)))
    parser.add_argument("--list", action="store_true", help="print the names only")
    parser.add_argument("--begun", type=float, default=time.time(), help="when the whole run began (seconds, for the sum)")
    parser.add_argument("names", nargs="*", help="suites to run; all by default")
    args = parser.parse_args()

    suites = [*script_suites("e2e"), *script_suites("lab"), *(script_suites("full") if args.full else ()), *unit_suites(TOP / "build-asan")]
    if args.names:
        unknown = set(args.names) - {suite.name for suite in suites}
        if unknown:
            sys.exit(f"run-tests.py: no suite is named {', '.join(sorted(unknown))}")
        suites = [suite for suite in suites if suite.name in args.names]
    if args.list:
        print("\n".join(suite.name for suite in suites))
        return 0

    results = []
    for alone in (False, True):
        with concurrent.futures.ThreadPoolExecutor(1 if alone else args.jobs) as pool:
            for done in concurrent.futures.as_completed([pool.submit(run, suite) for suite in suites if suite.alone == alone]):
                results.append(done.result())
                report(results[-1])
    passed, failed, skipped = (sum(getattr(r, k) for r in results) for k in ("passed", "failed", "skipped"))
    print(f"\n{len(results)} suites in {time.time() - args.begun:.0f} s, the build included")
    line = f"{passed} passed, {failed} failed, {skipped} skipped"
    print(line, flush=True)
    if os.environ.get("HUSK_TEST_COUNTS"):
        pathlib.Path(os.environ["HUSK_TEST_COUNTS"]).write_text(line + "\n")
    return 1 if failed or not passed else 0


def default_signals():
    """Suites start with no signal ignored, also under nohup or a shell's `&`: a signal that this process catches is the default
    again after exec(2), and still does nothing here."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    default_signals()
    sys.exit(main())
