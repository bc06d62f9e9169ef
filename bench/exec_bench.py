# SPDX-License-Identifier: Apache-2.0
"""exec_bench.py - exec in a VM that runs (bench-exec), against the guest's own time for the program and a bare vsock echo; a
gibibyte of output without growth; a hundred programs at once."""
import concurrent.futures
import json
import pathlib
import re
import subprocess
import time

import images
import lib

TOP = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 200
AT_ONCE = 100


def peak_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, round(q * (len(values) - 1)))]


def run(rows, say, build, home, folder):
    guest = pathlib.Path(folder) / "exec-guest"
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", guest, TOP / "bench" / "exec-guest.c"], check=True)
    environment = {**home.environment(), "HUSK_LIBEXEC": str(build / "libexec")}

    def husk(*words):
        return subprocess.run([lib.HUSK, *words], env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True).stdout

    husk("run", "-q", "-d", "--init", "--name", "bench", "--machine", lib.MACHINE, images.busybox(), "sleep", "100000")
    try:
        worker = json.loads(husk("inspect", "bench"))[0]["pids"]["worker"]
        say(f"exec: {ROUNDS} rounds, and a gibibyte")
        before = peak_kib(worker)
        said = subprocess.run([build / "bench" / "bench-exec", "bench", guest, str(ROUNDS)], env=environment, check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        grown = peak_kib(worker) - before
        found = {}
        for line in said.splitlines():
            name, *values = line.split()
            found.setdefault(name, []).extend(map(float, values))
        tell(rows, found, grown)
        say(f"exec: {AT_ONCE} at once")
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            told = list(pool.map(lambda i: husk("exec", "bench", "echo", str(i)), range(AT_ONCE)))
        right = sum(text == f"{i}\n" for i, text in enumerate(told))
        rows.append((f"exec: {AT_ONCE} `husk exec` at once", f"{time.monotonic() - begun:.2f} s", "", "1", f"{right} right", "all",
                     "yes" if right == AT_ONCE else "NO"))
    finally:
        husk("rm", "-f", "bench")


def tell(rows, found, grown):
    middle = {name: quantile(values, .5) for name, values in found.items()}
    middle["spawn"] = sum(found["spawn"]) / len(found["spawn"])  # an emulated guest's clock may go in steps of 4 ms
    over = (middle["exec"] - middle["spawn"]) / middle["echo"]
    over_anew = (middle["exec"] - middle["spawn"]) / middle["echo-anew"]
    against = f"less the guest's own: {over:.2f} x a vsock echo, {over_anew:.2f} x one on a new connection"
    for name, what in (("exec", "exec: `true` in a VM that runs"), ("spawn", "exec: the guest's own fork, exec, wait of it (mean)"),
                       ("echo", "exec: a byte over vsock and back"), ("echo-anew", "exec: the same, on a new connection")):
        values = found[name]
        first = name == "exec"
        rows.append((what, f"{middle[name]:.0f} us", f"{quantile(values, .99):.0f} us", str(len(values)), against if first else "",
                     "<= 4 x" if first else "", ("yes" if over <= 4 else "NO") if first else ""))
    before, after = found["rss"]
    rows.append(("exec: a GiB of output, the caller grows by", f"{after - before:.0f} KiB", "", "1",
                 f"{1024 / (found['flood'][0] / 1e6):.0f} MiB/s", "< 1024 KiB", "yes" if after - before < 1024 else "NO"))
    rows.append(("exec: the worker by, with all the above", f"{grown} KiB", "", "1", "", "< 2048 KiB", "yes" if grown < 2048 else "NO"))
