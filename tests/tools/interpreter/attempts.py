"""What a model's code may try against this machine: cells for a kernel, and what they are tried against.

Each cell prints a line that begins with `GOT` for whatever it gets and must not, and one that begins with `no:` for
what was refused. Some cells can only look as if they succeeded; `Surroundings` tells what arrived on the host. All are
bounded, and none sends anything beyond this machine. Needs the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Attempt", "Surroundings"]

# name:number on x86_64:number on aarch64
_NUMBERS = """
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 pidfd_getfd:438:438 pidfd_open:434:434
pidfd_send_signal:424:424 kcmp:312:272 process_madvise:440:440 mount:165:40 umount2:166:39 unshare:272:97 clone:56:220
clone3:435:435 setns:308:268 pivot_root:155:41 chroot:161:51 open_tree:428:428 move_mount:429:429 fsopen:430:430
fsconfig:431:431 fsmount:432:432 fspick:433:433 mount_setattr:442:442 init_module:175:105 finit_module:313:273
delete_module:176:106 bpf:321:280 perf_event_open:298:241 io_uring_setup:425:425 userfaultfd:323:282 add_key:248:217
request_key:249:218 keyctl:250:219 reboot:169:142 swapon:167:224 swapoff:168:225 settimeofday:164:170
clock_settime:227:112 adjtimex:159:171 kexec_load:246:104 open_by_handle_at:304:265 name_to_handle_at:303:264
personality:135:92 syslog:103:116 iopl:172:- ioperm:173:- mknodat:259:33 fanotify_init:300:262 lookup_dcookie:212:18
uselib:134:- acct:163:89 quotactl:179:60 vhangup:153:58 sched_setattr:314:274 sched_setscheduler:144:119
ioprio_set:251:30 memfd_create:319:279 memfd_secret:447:447 shmget:29:194 shmat:30:196 semget:64:190 msgget:68:186
mq_open:240:180 vmsplice:278:75 landlock_create_ruleset:444:444 landlock_restrict_self:446:446 seccomp:317:277
sethostname:170:161 setdomainname:171:162 inotify_init1:294:26 openat2:437:437 setxattr:188:5 move_pages:279:239
migrate_pages:256:238 capset:126:91 timer_create:222:107 execveat:322:281 statmount:457:457
close_range:436:436 exit:60:93
"""

_PRELUDE = """
import ctypes, errno, fcntl, os, resource, signal, socket, stat, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
numbers = {numbers}

def t(what, f):
    try:
        r = f()
    except BaseException as e:
        print("no:", what, "->", type(e).__name__, str(e)[:80])
    else:
        print("GOT", what, repr(r)[:80])

def call(name, *arguments):
    if name not in numbers:
        raise OSError(errno.ENOSYS, "no such call here")
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    r = libc.syscall(ctypes.c_long(numbers[name]), *given)
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r

def nothing(why):
    raise OSError(why)

pp = os.getppid()
host = {host}
secret, other, base = {secret!r}, {other!r}, {base!r}
"""


@dataclass(frozen=True)
class Attempt:
    """A cell.

    Attributes:
        name: its number and what it is after.
        watched: whether it takes the host's watchdog to stop it; else it is refused by the sandbox.
    """

    name: str
    code: str
    watched: bool


class Surroundings:
    """A secret, another conversation, and servers on this machine; and what reaches them. A context manager.

    Attributes:
        mine: the folder of the conversation that tries.
        heard: what arrived, since it was cleared.
    """

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="attempts-"))
        self.base.chmod(0o755)
        self.secret, self.other, self.mine = self.base / "home", self.base / "other", self.base / "mine"
        for folder, name in ((self.secret, "secret.txt"), (self.other, "diary.txt")):
            folder.mkdir()
            (folder / name).write_text("TOPSECRET")
            (folder / name).chmod(0o644)
        self.mine.mkdir(mode=0o700)
        self.heard: list[str] = []
        self._sockets: list[socket.socket] = []
        self._signals = {number: signal.signal(number, self._signalled) for number in (signal.SIGUSR1, signal.SIGUSR2)}
        self.tcp = self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), "tcp")
        self.udp = self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), "udp")
        self.abstract = f"chatglm-attempts-{os.getpid()}"
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{self.base}/model.sock", "path")
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.abstract}", "abstract")
        self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, f"{self.base}/log.sock", "datagram")
        self._marks = self._marked()

    def __enter__(self) -> Surroundings:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        subprocess.run(["rm", "-rf", str(self.base)], check=False)  # folders lie deeper than shutil can go

    def arrived(self) -> list[str]:
        """What reached the host since it was last asked, a moment after a cell."""
        time.sleep(0.05)
        found, self.heard = self.heard, []
        if self._marked() != self._marks:
            found.append(f"files changed: {self._marked()}")
        return found

    def attempts(self) -> list[Attempt]:
        column = 1 + ("x86_64", "aarch64").index(platform.machine())
        entries = (entry.split(":") for entry in _NUMBERS.split())
        numbers = {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}
        head = _PRELUDE.format(
            numbers=numbers, host=os.getpid(), secret=str(self.secret), other=str(self.other), base=str(self.base)
        )
        values = {"TCP": self.tcp, "UDP": self.udp, "ABSTRACT": self.abstract, "PREFIX": sys.prefix}
        made = []
        for name, (code, watched) in _CELLS.items():
            for word, value in values.items():
                code = code.replace(f"@{word}@", str(value))
            made.append(Attempt(name, head + code, watched))
        return made

    def _marked(self) -> list[tuple[str, int, float]]:
        paths = (self.secret, self.secret / "secret.txt", self.other, self.other / "diary.txt")
        return [(path.name, path.stat().st_mode, path.stat().st_mtime) for path in paths if path.exists()]

    def _signalled(self, number: int, _: object) -> None:
        self.heard.append(f"signal {number}")

    def _listen(self, family: int, kind: int, where: object, name: str) -> int:
        made = socket.socket(family, kind)
        made.bind(where)
        if isinstance(where, str) and where.startswith("/"):
            os.chmod(where, 0o777)
        if kind == socket.SOCK_STREAM:
            made.listen(8)
        self._sockets.append(made)
        threading.Thread(target=self._hear, args=(made, kind, name), daemon=True).start()
        return int(made.getsockname()[1]) if family == socket.AF_INET else 0

    def _hear(self, made: socket.socket, kind: int, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                if kind == socket.SOCK_STREAM:
                    made.accept()[0].close()
                elif not made.recv(100):
                    return
                self.heard.append(name)


_CELLS: dict[str, tuple[str, bool]] = {}


def _cell(name: str, code: str, watched: bool = False) -> None:
    _CELLS[name] = (code, watched)


_cell(
    "00 what was left open",
    """
def others():
    found = []
    sockets = 0
    for fd in range(1024):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        sockets += stat.S_ISSOCK(mode)
        odd = stat.S_ISCHR(mode) and os.fstat(fd).st_rdev != os.makedev(1, 3)
        if odd or stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            found.append(fd)
    return found or (sockets > 3 and f"{sockets} sockets") or nothing("nothing but a socket and pipes")
t("files", others)
ours = ("CHATGLM", "SSH", "AWS", "HF_", "PYTEST", "SECRET")
t("environment", lambda: [name for name in os.environ if name.startswith(ours)] or nothing("none"))
for fd in (0, 1, 2):
    t(f"/dev/fd/{fd}/..", lambda: os.listdir(f"/dev/fd/{fd}/.."))
    t(f"/proc/self/fd/{fd}/..", lambda: os.listdir(f"/proc/self/fd/{fd}/.."))
""",
)
_cell(
    "01 files of the system",
    """
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/proc/cmdline", "/boot", "/var/log"):
    t(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read(60) or nothing("empty"))
""",
)
_cell(
    "02 homes",
    """
t("secret", lambda: open(secret + "/secret.txt").read())
t("list", lambda: os.listdir(secret))
for home in ("/root", "/home"):
    t(home, lambda: os.listdir(home))
t("descriptor of a folder", lambda: os.open(secret, os.O_RDONLY | os.O_DIRECTORY))
def from_within():
    here = os.getcwd()
    try:
        os.chdir(secret)
        return open("secret.txt").read()
    finally:
        os.chdir(here)
t("after chdir", from_within)
""",
)
_cell(
    "03 writing elsewhere",
    """
import json
for path in (base + "/evil", "/evil", "/usr/evil", "/etc/evil", "/dev/evil", "@PREFIX@/evil", secret + "/secret.txt",
        os.path.dirname(json.__file__) + "/__pycache__/evil.pyc", json.__file__):
    t("write " + path, lambda: open(path, "ab"))
t("truncate", lambda: os.truncate(secret + "/secret.txt", 0))
t("unlink", lambda: os.unlink(secret + "/secret.txt"))
t("rename", lambda: os.rename(secret + "/secret.txt", "mine"))
t("rename into", lambda: os.rename("/bin/sh", secret + "/x"))
t("mkdir", lambda: os.mkdir(secret + "/x"))
t("symlink", lambda: os.symlink("/", secret + "/x"))
t("file without a name", lambda: os.open(secret, os.O_TMPFILE | os.O_RDWR))
""",
)
_cell(
    "04 networks",
    """
def tcp():
    s = socket.socket()
    s.settimeout(2)
    s.connect(("127.0.0.1", @TCP@))
    return "connected"
t("tcp", tcp)
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"hi", ("127.0.0.1", @UDP@))
    return "sent"
t("udp", udp)
def families():
    found = []
    for family in range(46):
        for kind in (1, 2, 3, 5):
            try:
                socket.socket(family, kind).close()
                found.append((family, kind))
            except OSError:
                pass
    return found or nothing("no family at all")
t("any family", families)
""",
)
_cell(
    "05 sockets of this machine",
    """
def stream(where):
    s = socket.socket(socket.AF_UNIX)
    s.connect(where)
    return "connected"
t("path", lambda: stream(base + "/model.sock"))
t("abstract", lambda: stream("\\0@ABSTRACT@"))
def datagram():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendto(b"hello", base + "/log.sock")
    return "sent"
t("datagram of a pair", datagram)
def pair():
    a, b = socket.socketpair()
    a.sendto(b"hello", base + "/log.sock")
    return "sent"
t("stream of a pair", pair)
for path in ("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/tmp/.X11-unix/X0"):
    t(path, lambda: stream(path))
""",
)
_cell(
    "06 processes",
    """
hold, release = os.pipe()
made = 0
try:
    for _ in range(300):
        if os.fork() == 0:
            os.close(release)
            os.read(hold, 1)
            os._exit(0)
        made += 1
except OSError as e:
    print("no: fork", made, e)
else:
    print("GOT 300 processes")
os.close(release)
for _ in range(made):
    os.wait()
def threads():
    stop = threading.Event()
    made = []
    try:
        for _ in range(300):
            made.append(threading.Thread(target=stop.wait))
            made[-1].start()
        return len(made)
    finally:
        stop.set()
        for thread in made[:-1]:
            thread.join()
t("threads", threads)
""",
)
_cell(
    "07 memory of one process",
    """
kept = []
for _ in range(64):
    kept.append(bytearray(b"x" * (32 << 20)))
    time.sleep(0.02)
print("GOT 2 GiB")
""",
    watched=True,
)
_cell(
    "08 memory of many processes",
    """
for _ in range(20):
    if os.fork() == 0:
        kept = bytearray(b"x" * (150 << 20))
        time.sleep(5)
        os._exit(0)
time.sleep(5)
print("GOT 3 GiB")
""",
    watched=True,
)
_cell(
    "09 memory that no process has",
    """
def files():
    made = os.memfd_create("x")
    return os.write(made, b"x" * (32 << 20))
t("memfd", files)
t("memfd_secret", lambda: call("memfd_secret", 0))
t("shmget", lambda: call("shmget", 0, 128 << 20, 0o1600))
t("semget", lambda: call("semget", 0, 10, 0o1600))
t("msgget", lambda: call("msgget", 0, 0o1600))
t("mq_open", lambda: call("mq_open", b"x", 0o102, 0o600, None))
def fill(folder):
    made = []
    try:
        for i in range(20):
            made.append(f"{folder}/fill{i}")
            with open(made[-1], "wb") as f:
                f.write(b"x" * (8 << 20))
        return "160 MiB"
    finally:
        for path in made:
            if os.path.exists(path):
                os.unlink(path)
for folder in ("/dev/shm", "/dev", "/tmp", "/run", "/var/tmp"):
    t(folder, lambda: fill(folder))
t("size of a pipe", lambda: fcntl.fcntl(os.pipe()[0], 1031, 1 << 20))
def in_flight():
    a, b = socket.socketpair()
    for _ in range(50):
        opened = [os.dup(0) for _ in range(100)]
        try:
            socket.send_fds(a, [b"x"], opened)
        finally:
            for fd in opened:
                os.close(fd)
    return "5,000 open files in a socket"
t("open files in a socket", in_flight)
""",
)
_cell(
    "10 one large file",
    """
def large():
    try:
        with open("large", "wb") as f:
            for _ in range(600):
                f.write(b"x" * (1 << 20))
        return "600 MiB"
    finally:
        os.unlink("large")
t("a file", large)
def sparse():
    try:
        with open("sparse", "wb") as f:
            f.truncate(1 << 40)
        return "1 TiB"
    finally:
        os.unlink("sparse")
t("a sparse file", sparse)
""",
)
_cell(
    "11 many large files",
    """
for i in range(60):
    with open(f"f{i}", "wb") as f:
        f.write(b"x" * (16 << 20))
    time.sleep(0.05)
print("GOT 960 MiB")
""",
    watched=True,
)
_cell(
    "12 many files",
    """
os.mkdir("d")
for i in range(60000):
    open(f"d/{i}", "w").close()
    if not i % 500:
        time.sleep(0.02)
print("GOT 60,000 files")
""",
    watched=True,
)
_cell("13 an endless loop", "while True: pass", watched=True)
_cell(
    "14 an endless loop that hears no signal, in a child too",
    """
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
os.fork()
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
    watched=True,
)
_cell(
    "15 memory of other processes",
    """
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
here, there = Part(ctypes.addressof(buffer), 8), Part(0x400000, 8)
for name, who in (("parent", pp), ("host", host)):
    t("attach to " + name, lambda: call("ptrace", 16, who, 0, 0))
    t("seize " + name, lambda: call("ptrace", 0x4206, who, 0, 0))
    t("read " + name, lambda: call("process_vm_readv", who, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
    t("write " + name, lambda: call("process_vm_writev", who, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
    for file in ("mem", "environ", "maps", "root", "cwd", "exe", "fd/0"):
        path = f"/proc/{who}/{file}"
        t(path, lambda: os.listdir(path) if file in ("root", "cwd") else open(path, "rb").read(0))
    t("a descriptor of " + name, lambda: call("pidfd_getfd", call("pidfd_open", who, 0), 0, 0))
    t("compare with " + name, lambda: call("kcmp", who, os.getpid(), 0, 0, 0))
    t("advise " + name, lambda: call("process_madvise", call("pidfd_open", who, 0), ctypes.byref(there), 1, 20, 0))
""",
)
_cell(
    "16 signals to others",
    """
t("to the host", lambda: os.kill(host, signal.SIGUSR1))
t("to the host's group", lambda: os.killpg(os.getpgid(host), signal.SIGUSR1))
t("by a handle", lambda: signal.pidfd_send_signal(os.pidfd_open(host), signal.SIGUSR2))
t("kill the parent", lambda: os.kill(pp, signal.SIGKILL))
try:
    os.kill(-1, signal.SIGUSR1)
    print("no: everybody -> the host says whether it heard")
except OSError as e:
    print("no: everybody ->", e)
def by_owner(command, *value):
    a, b = socket.socketpair()
    fcntl.fcntl(a, command, *value)
    fcntl.fcntl(a, 10, signal.SIGUSR2)  # F_SETSIG
    fcntl.fcntl(a, fcntl.F_SETFL, fcntl.fcntl(a, fcntl.F_GETFL) | os.O_ASYNC)
    b.send(b"x")
    return "sent"
t("by a file's owner", lambda: by_owner(fcntl.F_SETOWN, host))
t("by a file's owner, the newer way", lambda: by_owner(15, struct.pack("ii", 1, host)))
t("by an ioctl", lambda: fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack("i", host)))
""",
)
_cell(
    "17 /proc",
    """
t("root of 1", lambda: os.listdir("/proc/1/root"))
t("root of the parent", lambda: os.listdir(f"/proc/{pp}/root"))
for path in ("sys/kernel/core_pattern", "sys/vm/overcommit_memory", "sysrq-trigger", "self/oom_score_adj", "self/mem",
        "self/uid_map", "self/loginuid", "self/clear_refs"):
    t("write " + path, lambda: open("/proc/" + path, "r+b"))
t("processes of the host", lambda: [p for p in os.listdir("/proc") if p.isdigit() and int(p) > 300] or nothing("none"))
for path in ("kcore", "kallsyms", "keys", "config.gz", "modules", "timer_list"):
    t(path, lambda: open("/proc/" + path, "rb").read(10) or nothing("empty"))
t("own program", lambda: open("/proc/self/exe", "r+b"))
""",
)
_cell(
    "18 links and ways up",
    """
os.symlink(secret, "link")
os.symlink(secret + "/secret.txt", "plot.png")
here = os.getcwd()
for path in (here + "/link/secret.txt", "link/secret.txt", "plot.png", "../../.." + secret + "/secret.txt",
        "../other/diary.txt", here + "/../../../../../../etc/passwd", "/dev/fd/0/../../../etc/passwd"):
    t(path, lambda: open(path).read())
t("hard link", lambda: os.link(secret + "/secret.txt", "hard"))
t("hard link to a program", lambda: os.link("/bin/sh", "hard2"))
def raced():
    stop = threading.Event()
    def swap():
        while not stop.is_set():
            for target in (here, secret):
                try:
                    os.symlink(target, "new")
                    os.rename("new", "race")
                except OSError:
                    pass
    os.symlink(here, "race")
    worker = threading.Thread(target=swap)
    worker.start()
    try:
        for _ in range(300):
            try:
                return open("race/secret.txt").read()
            except OSError:
                pass
        nothing("300 times nothing")
    finally:
        stop.set()
        worker.join()
        os.unlink("race")
t("race", raced)
""",
)
_cell(
    "19 another conversation",
    """
t("read", lambda: open(other + "/diary.txt").read())
t("list", lambda: os.listdir(other))
t("list above", lambda: os.listdir(base))
t("list ..", lambda: os.listdir(".."))
t("write", lambda: open(other + "/diary.txt", "a"))
""",
)
_cell(
    "20 a daemon",
    """
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        for _ in range(6000):
            with open("beat", "w") as f:
                f.write(str(time.time()))
            time.sleep(0.05)
    os._exit(0)
os.wait()
time.sleep(0.2)
print("no: it is to be ended with the kernel")
""",
)
_cell(
    "21 mounts and namespaces",
    """
t("mount", lambda: call("mount", b"none", b".", b"tmpfs", 0, None))
t("bind", lambda: call("mount", b"/", b".", None, 4096, None))
t("umount", lambda: call("umount2", os.getcwd().encode(), 2))
for name, flag in (("user", 0x10000000), ("net", 0x40000000), ("mount", 0x20000), ("pid", 0x20000000), ("time", 0x80)):
    t("unshare " + name, lambda: call("unshare", flag))
t("clone", lambda: call("clone", 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0))
t("clone3", lambda: call("clone3", ctypes.create_string_buffer(struct.pack("8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0)), 64)
    or os._exit(0))
t("setns", lambda: call("setns", 0, 0))
t("setns by a handle", lambda: call("setns", call("pidfd_open", host, 0), 0x10000000))
t("chroot", lambda: os.chroot("."))
t("pivot_root", lambda: call("pivot_root", b".", b"."))
t("open_tree", lambda: call("open_tree", -100, b"/", 1))
t("fsopen", lambda: call("fsopen", b"tmpfs", 0))
t("fspick", lambda: call("fspick", -100, b".", 0))
t("move_mount", lambda: call("move_mount", -100, b"/", -100, b".", 0))
t("mount_setattr", lambda: call("mount_setattr", -100, b"/", 0, ctypes.create_string_buffer(32), 32))
t("statmount", lambda: call("statmount", None, None, 0, 0))
t("setuid", lambda: os.setuid(0) or os.getuid() == 0 or nothing("still another"))
t("setgroups", lambda: os.setgroups([0]))
header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
wanted = ctypes.create_string_buffer(struct.pack("6I", 1 << 21, 1 << 21, 0, 0, 0, 0))
t("capset", lambda: call("capset", header, wanted))
""",
)
_cell(
    "22 calls of the kernel",
    """
space = ctypes.create_string_buffer(256)
for name, arguments in {
    "init_module": (None, 0, b""), "finit_module": (0, b"", 0), "delete_module": (b"x", 0), "bpf": (0, space, 128),
    "perf_event_open": (space, 0, -1, -1, 0), "io_uring_setup": (8, space), "userfaultfd": (1,),
    "add_key": (b"user", b"x", b"y", 1, -3), "request_key": (b"user", b"x", None, -3), "keyctl": (0, -3, 1),
    "reboot": (0, 0, 0, 0), "swapon": (b"/x", 0), "swapoff": (b"/x",), "settimeofday": (space, None),
    "clock_settime": (0, space), "kexec_load": (0, 0, None, 0),
    "open_by_handle_at": (-100, space, 0), "personality": (0x0040000,), "syslog": (2, space, 64), "iopl": (3,),
    "ioperm": (0x80, 1, 1), "mknodat": (-100, b"device", 0o60644, 0), "fanotify_init": (0, 0), "acct": (None,),
    "lookup_dcookie": (0, space, 0), "uselib": (b"x",), "quotactl": (0, None, 0, None), "vhangup": (),
    "sethostname": (b"x", 1), "setdomainname": (b"x", 1), "inotify_init1": (0,),
    "setxattr": (b".", b"user.x", b"y", 1, 0), "memfd_create": (b"x", 0), "seccomp": (1, 8, space),
    "landlock_create_ruleset": (None, 0, 1),
    "landlock_restrict_self": (0, 0), "move_pages": (0, 0, None, None, None, 0), "migrate_pages": (0, 0, None, None),
}.items():
    t(name, lambda: call(name, *arguments))
handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 120, 0) + bytes(128)), ctypes.c_int()
t("name_to_handle_at", lambda: call("name_to_handle_at", -100, b".", handle, ctypes.byref(mount), 0))
def pages():
    parts = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(space), 8))
    return call("vmsplice", os.pipe()[1], parts, 1, 0)
t("vmsplice", pages)
how = ctypes.create_string_buffer(struct.pack("QQQ", 0, 0, 0))
t("openat2", lambda: call("openat2", -100, (secret + "/secret.txt").encode(), how, 24))
t("openat2 at home", lambda: call("openat2", -100, b".", how, 24))
""",
)
_cell(
    "23 programs with rights",
    """
import glob
def program(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    if done.stdout.strip().splitlines()[-1:] == ["0"]:
        return "root"
    nothing(f"{done.returncode} {done.stderr[:60]}")
t("su", lambda: program("/usr/bin/su", "-c", "id -u"))
t("sudo", lambda: program("/usr/bin/sudo", "-n", "id", "-u"))
t("bwrap", lambda: program("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "0", "id", "-u"))
t("unshare", lambda: program("unshare", "-r", "id", "-u"))
def set_id(make):
    try:
        make()
        mode = os.stat("ids").st_mode
        return oct(mode) if mode & 0o6000 else nothing("no such mode")
    finally:
        if os.path.exists("ids"):
            os.unlink("ids")
t("a file with its owner's rights", lambda: set_id(lambda: os.close(os.open("ids", os.O_CREAT | os.O_WRONLY, 0o4755))))
def changed():
    open("ids", "w").close()
    os.chmod("ids", 0o6755)
t("the same by chmod", lambda: set_id(changed))
def changed_by_handle():
    with open("ids", "w") as f:
        os.fchmod(f.fileno(), 0o6755)
t("the same by fchmod", lambda: set_id(changed_by_handle))
""",
)
_cell(
    "24 the next kernel",
    """
os.environ["LD_PRELOAD"] = os.getcwd() + "/evil.so"
os.environ["PYTHONPATH"] = os.getcwd()
poison = "import os; os.environ['POISONED'] = '1'"
for name in ("sitecustomize", "usercustomize", "json", "ctypes", "IPython", "shell", "landlock", "matplotlibrc"):
    with open(name + ".py", "w") as f:
        f.write(poison)
for folder in (".ipython/profile_default/startup", ".local/lib/python3.11/site-packages", ".config/matplotlib"):
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/x.py", "w") as f:
        f.write(poison)
del os.environ["LD_PRELOAD"], os.environ["PYTHONPATH"]
print("no: the next kernel says whether it is poisoned")
""",
)
_cell("25 a flood of output", "for _ in range(4000): print('x' * 100000)", watched=True)
_cell("26 an enormous result", "'x' * (400 << 20)", watched=True)
_cell(
    "27 terminals",
    """
import termios
for fd in (0, 1, 2):
    t("TIOCSTI", lambda: fcntl.ioctl(fd, 0x5412, b"x"))
    t("TIOCLINUX", lambda: fcntl.ioctl(fd, 0x541C, b"\\2"))
    t("TIOCSCTTY", lambda: fcntl.ioctl(fd, 0x540E, 1))
for path in ("tty", "console", "ptmx", "pts/ptmx", "tty0", "mem", "kvm", "fuse", "loop0", "vsock", "net/tun"):
    path = "/dev/" + path
    t(path, lambda: os.open(path, os.O_RDWR | os.O_NOCTTY))
""",
)
_cell(
    "28 messages of our own",
    """
import json
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
channel = next(fd for fd in range(3, 256) if is_socket(fd))
header = json.dumps({"kind": "picture", "number": 1}).encode()
os.write(channel, struct.pack(">II", len(header), 4) + header + b"<svg")
os.write(channel, struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) + b"A" * 100)
time.sleep(2)
""",
    watched=True,
)
_cell(
    "29 modes and times of others' files",
    """
path = secret + "/secret.txt"
def changed(change):
    before = os.stat(path)
    change()
    after = os.stat(path)
    return "changed" if (before.st_mode, before.st_mtime) != (after.st_mode, after.st_mtime) else nothing("as it was")
t("chmod", lambda: changed(lambda: os.chmod(path, 0o600)))
t("utime", lambda: changed(lambda: os.utime(path, (1, 1))))
t("chown", lambda: os.chown(path, os.getuid(), os.getgid()))
t("by a handle without rights", lambda: changed(lambda: os.fchmod(os.open(path, os.O_PATH), 0o600)))
t("setxattr", lambda: os.setxattr(path, "user.x", b"y"))
t("getxattr", lambda: os.listxattr(path))
t("flags", lambda: fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, b"\\0" * 8))
t("execute by a handle", lambda: call("execveat", os.open(path, os.O_PATH), b"", None, None, 0x1000))
""",
)
_cell(
    "30 holding up others",
    """
open("own", "w").close()
own = os.open("own", os.O_RDONLY)
t("lease", lambda: fcntl.fcntl(own, 1024, fcntl.F_WRLCK))
t("notify", lambda: fcntl.fcntl(os.open(".", os.O_RDONLY), 1026, 2))
t("fifo", lambda: os.mkfifo("fifo"))
t("device", lambda: os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 3)))
t("freeze", lambda: fcntl.ioctl(own, 0xC0045877, 0))
""",
)
_cell(
    "31 limits and priorities of others and of itself",
    """
t("limits of the host", lambda: resource.prlimit(host, resource.RLIMIT_CORE))
t("priority of the host", lambda: os.setpriority(os.PRIO_PROCESS, host, 19))
t("processors of the host", lambda: os.sched_setaffinity(host, os.sched_getaffinity(0)))
t("disk priority of the host", lambda: call("ioprio_set", 1, host, 3 << 13))
t("real time", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
t("real time, the newer way", lambda: call("sched_setattr", 0, ctypes.create_string_buffer(
    struct.pack("IIQiIQQQ", 48, 2, 0, 0, 1, 0, 0, 0)), 0))
t("better priority", lambda: os.nice(-5))
for name in ("NPROC", "NOFILE", "AS", "FSIZE", "CORE"):
    kind = getattr(resource, "RLIMIT_" + name)
    more = resource.getrlimit(kind)[1] + 1
    t("more of " + name, lambda: resource.setrlimit(kind, (more, more)) if more else nothing("no limit"))
for name, number in {"dumpable": 4, "end of the parent": 1, "subreaper": 36, "memory map": 35, "tracer": 0x59616D61,
        "seccomp": 22, "security bits": 28, "ambient": 47}.items():
    t("prctl: " + name, lambda: libc.prctl(number, 2 if number == 47 else 0, 0, 0, 0) and nothing("refused"))
""",
)
_cell(
    "32 floods",
    """
def many(make, count=2000):
    made = []
    try:
        for _ in range(count):
            made.append(make())
        return count
    finally:
        for fd in made:
            os.close(fd)
t("open files", lambda: many(lambda: os.dup(0)))
t("inotify", lambda: many(lambda: call("inotify_init1", 0), 10))
def timers():
    for _ in range(5000):
        number = ctypes.c_int()
        call("timer_create", 1, None, ctypes.byref(number))
    return 5000
t("timers", timers)
t("arguments", lambda: subprocess.run(["/bin/true", *["x" * 100000] * 200], env={}))
t("environment", lambda: subprocess.run(["/bin/true"], env={f"X{i}": "x" * 100000 for i in range(200)}))
t("memory at 0", lambda: libc.mmap(0, 4096, 3, 0x32, -1, 0) == 0 or nothing("refused"))
""",
)
_cell(
    "33 crashes",
    """
import glob
if os.fork() == 0:
    os.abort()
os.wait()
t("a dump", lambda: glob.glob("core*") or glob.glob("/tmp/core*") or nothing("none"))
""",
)
_cell(
    "34 folders in folders",
    """
here = os.getcwd()
top = os.environ["TMPDIR"]
os.chdir(top)
deep = 0
try:
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
        deep += 1
except OSError as e:
    print("no:", e)
os.chdir(here)
print("no: they are to be gone with the kernel:", deep)
""",
)
_cell(
    "35 a trap in the place of the temporary folder",
    """
folder = os.environ["TMPDIR"]
if folder != "/tmp":
    os.rename(folder, "elsewhere")
    os.symlink(secret, folder)
print("no: the host says whether the secret is still there")
""",
)
_cell(
    "36 memory in sockets",
    """
hold, release = os.pipe()
for _ in range(25):
    if os.fork() == 0:
        os.close(release)
        made = [socket.socketpair() for _ in range(100)]
        for a, b in made:
            a.setblocking(False)
            try:
                while True:
                    a.send(b"x" * 65536)
            except BlockingIOError:
                pass
        os.read(hold, 1)
        os._exit(0)
time.sleep(4)
print("GOT 500 MiB")
""",
    watched=True,
)
_cell(
    "37 open files for the host",
    """
import json
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
channel = socket.socket(fileno=os.dup(next(fd for fd in range(3, 256) if is_socket(fd))))
for number in range(1000, 1010):
    header = json.dumps({"kind": "result", "text": "mine", "number": number}).encode()
    try:
        socket.send_fds(channel, [struct.pack(">II", len(header), 0) + header], [0] * 100)
    except PermissionError as e:
        print("no:", e)
        break
    channel.recv(struct.unpack(">II", channel.recv(8))[0])
channel.close()
print("no: the host says whether it has more open files")
""",
    watched=True,
)
_cell(
    "38 files that no process has open",
    """
a, b = socket.socketpair()
def lies():
    f = os.open("lies", os.O_RDWR | os.O_CREAT)
    try:
        os.unlink("lies")
        return socket.send_fds(a, [b"x"], [f])
    finally:
        os.close(f)
t("a file in a socket", lies)
""",
)
_cell(
    "39 a thread with open files of its own",
    """
stack = ctypes.create_string_buffer(1 << 16)
top = (ctypes.addressof(stack) + (1 << 16)) & ~15
def thread():
    libc.clone.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
    made = libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, 0x10000 | 0x800 | 0x200 | 0x100, None)
    return made if made >= 0 else nothing(os.strerror(ctypes.get_errno()))
t("a thread that begins with it", thread)
t("a thread that takes it", lambda: call("close_range", 1 << 20, 1 << 20, 2) + 1)
""",
)
_cell(
    "40 memory of a process whose first thread has ended",
    """
if os.fork() == 0:
    def fill():
        try:
            kept = [b"x" * (64 << 20) for _ in range(7)]
            time.sleep(2)
        finally:
            os._exit(len(kept) != 7)
    threading.Thread(target=fill).start()
    call("exit", 0)
if os.wait()[1] == 0:
    print("GOT 448 MiB")
""",
    watched=True,
)
_cell(
    "41 page tables",
    """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
if os.fork() == 0:
    try:
        for i in range(60000):  # each page that is read has two tables of its own, and is itself the page of zeros
            address = (1 << 40) + (i << 30)
            if libc.mmap(address, 4096, 3, 0x32, -1, 0) != address:
                os._exit(1)
            ctypes.c_char.from_address(address).value
        time.sleep(2)
        os._exit(0)
    finally:
        os._exit(1)
if os.wait()[1] == 0:
    print("GOT 468 MiB")
""",
    watched=True,
)
