"""The list of system calls that a model's code may make. All others fail with "Operation not permitted", including
calls that are added to Linux later.

The filter is a program of classic BPF, assembled here for x86_64 and aarch64; neither libseccomp nor anything of this
package is needed, so it runs inside the sandbox. Sources: the numbers are in Linux's `syscall_64.tbl` (x86) and
`asm-generic/unistd.h`, the structures in `linux/seccomp.h` and `linux/filter.h`.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import struct
from typing import Literal, NamedTuple

__all__ = ["ARCHITECTURES", "Signals", "load", "program"]

Signals = Literal["tree", "self"]
"""Allowed receivers of signals: `tree` if a process namespace or Landlock limits them, `self` if nothing else does."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_… of linux/audit.h

# name:number on x86_64:number on aarch64; "-" where there is none. Not on the list, though they seem harmless:
# memfd_create, shmget (memory that no process owns), inotify (each user has few, and the host needs some), mknod (a
# FIFO blocks whoever opens it), setxattr (uses space that no limit counts), connect, bind, accept (there is no other
# end), sendmsg (files in a socket cannot be seen, so their size would not count).
_ALLOWED = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
preadv2:327:286 pwritev2:328:287 close:3:57 lseek:8:62 dup:32:23 dup2:33:- dup3:292:24
flock:73:32 fsync:74:82 fdatasync:75:83 sync_file_range:277:84 truncate:76:45 ftruncate:77:46
fadvise64:221:223 readahead:187:213 copy_file_range:326:285 sendfile:40:71

stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291 access:21:- faccessat:269:48 faccessat2:439:439
readlink:89:- readlinkat:267:78 getdents:78:- getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50
rename:82:- renameat:264:38 rmdir:84:- unlink:87:- unlinkat:263:35 umask:95:166 statfs:137:43 fstatfs:138:44

mmap:9:222 munmap:11:215 mprotect:10:226 mremap:25:216 madvise:28:233 brk:12:214 msync:26:227 mlock:149:228
munlock:150:229 membarrier:324:283 pkey_alloc:330:289 pkey_free:331:290 pkey_mprotect:329:288 mseal:462:462
map_shadow_stack:453:453

rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigsuspend:130:133
rt_sigtimedwait:128:137 sigaltstack:131:132 pause:34:- alarm:37:- restart_syscall:219:128 signalfd:282:-
signalfd4:289:74

nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114 gettimeofday:96:169
time:201:- times:100:153 getitimer:36:102 setitimer:38:103 timer_create:222:107 timer_settime:223:110
timer_gettime:224:108 timer_getoverrun:225:109 timer_delete:226:111 timerfd_create:283:85 timerfd_settime:286:86
timerfd_gettime:287:87

futex:202:98 futex_waitv:449:449 futex_wake:454:454 futex_wait:455:455 futex_requeue:456:456
set_robust_list:273:99 rseq:334:293 set_tid_address:218:96 arch_prctl:158:- sched_yield:24:124
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 getpriority:140:141 getcpu:309:168

fork:57:- vfork:58:- execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95
getpid:39:172 getppid:110:173 gettid:186:178 getpgid:121:155 getpgrp:111:- getsid:124:156 setsid:112:157
setpgid:109:154 pidfd_open:434:434 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
getresuid:118:148 getresgid:120:150 getgroups:115:158 capget:125:90 getrlimit:97:163 getrusage:98:165
sysinfo:99:179 uname:63:160 getrandom:318:278

poll:7:- ppoll:271:73 select:23:- pselect6:270:72 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21
epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 pipe:22:- pipe2:293:59

getsockname:51:204 getpeername:52:205 getsockopt:55:209 shutdown:48:210 recvfrom:45:207 recvmsg:47:212
sendto:44:206
"""
_TREE_SIGNALS = """
kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 pidfd_send_signal:424:424
"""
_SELF_SIGNALS = "kill:62:129 tgkill:234:131"
_MAKING = "mkdir:83:- mkdirat:258:34 link:86:- linkat:265:37 symlink:88:- symlinkat:266:36 renameat2:316:276"


class _Test(NamedTuple):
    """A test whether a masked argument is one of the values. Only the lower 32 bits are tested, because Linux reads
    these arguments as ints. A filter that reads more bits than Linux can be evaded.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


class _Rule(NamedTuple):
    """Calls that are allowed if all tests are true, or never (None). `otherwise` is the error of a refused call."""

    calls: str
    tests: tuple[_Test, ...] | None
    otherwise: int = errno.EPERM


_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_THREAD, _SHARED_FILES = 0x10000, 0x400  # CLONE_THREAD, CLONE_FILES
_SET_ID = 0o6000  # set-user-id and set-group-id: the file runs with its owner's rights
_NEW_FILE, _WHITEOUT = 0o20000100, 4  # O_CREAT and O_TMPFILE; RENAME_WHITEOUT, which leaves a device
_UNIX, _STREAM, _SOCKET_TYPE = 1, 1, 0xF
_FILE_COMMANDS = (
    *range(8),  # duplicates, flags, locks; no operations that send signals, or block an open() of others
    *(36, 37, 38),  # locks of open files
    *(1030, 1032),  # F_DUPFD_CLOEXEC, F_GETPIPE_SZ
)
_IOCTLS = (
    *(0x5401, 0x802C542A),  # TCGETS, TCGETS2: isatty()
    *(0x540F, 0x5413),  # TIOCGPGRP, TIOCGWINSZ
    *(0x541B, 0x5421, 0x5450, 0x5451),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
)
_PRCTLS = (
    *(2, 3),  # PR_GET_PDEATHSIG, PR_GET_DUMPABLE, but not those that set these
    *(15, 16),  # names of threads
    *(21, 23, 30),  # PR_GET_SECCOMP, PR_CAPBSET_READ, PR_GET_TIMERSLACK
    *(38, 39),  # no new privileges
    *(41, 42, 0x53564D41),  # huge pages, PR_SET_VMA: malloc names its memory
)
_RULES: tuple[_Rule, ...] = (
    # A filter cannot read flags in memory. If a newer call does not exist, libraries use the older one.
    _Rule("clone3:435:435 openat2:437:437", None, errno.ENOSYS),
    # The same error as on a file system without extended attributes.
    _Rule("getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10", None, errno.ENOTSUP),
    _Rule("listxattr:194:11 llistxattr:195:12 flistxattr:196:13", None, errno.ENOTSUP),
    # It would fill the disk at once, before the watchdog checks. With this error, the C library writes instead.
    _Rule("fallocate:285:47", None, errno.EOPNOTSUPP),
    # The host checks the open files of only one thread of a process, so no thread may have its own table of files.
    _Rule(
        "clone:56:220",
        (_Test(0, (0, _SHARED_FILES, _THREAD | _SHARED_FILES), _NEW_NAMESPACES | _THREAD | _SHARED_FILES),),
    ),
    _Rule("close_range:436:436", (_Test(2, (0,), 2),)),  # CLOSE_RANGE_UNSHARE
    # With datagram sockets, the pair could send to any named socket.
    _Rule("socketpair:53:199", (_Test(0, (_UNIX,)), _Test(1, (_STREAM,), _SOCKET_TYPE))),
    _Rule("fcntl:72:25", (_Test(1, _FILE_COMMANDS),)),
    _Rule("ioctl:16:29", (_Test(1, _IOCTLS),), errno.ENOTTY),
    _Rule("prctl:157:167", (_Test(0, _PRCTLS),)),
    # Only for the process itself, not for another process of the same user.
    _Rule("prlimit64:302:261 sched_setaffinity:203:122", (_Test(0, (0,)),)),
    _Rule("setpriority:141:140", (_Test(0, (0,)), _Test(1, (0,)))),
)
_CREATES = (
    _Rule("creat:85:-", (_Test(1, (0,), _SET_ID),)),
    _Rule("open:2:-", (_Test(2, (0,), _SET_ID),)),
    _Rule("openat:257:56", (_Test(3, (0,), _SET_ID),)),
)
# The same error as on a disk where the user has reached the quota.
_CREATES_NOTHING = (
    _Rule("creat:85:- mkdir:83:- mkdirat:258:34", None, errno.EDQUOT),
    _Rule("link:86:- linkat:265:37 symlink:88:- symlinkat:266:36", None, errno.EDQUOT),
    _Rule("open:2:-", (_Test(1, (0,), _NEW_FILE),), errno.EDQUOT),
    _Rule("openat:257:56", (_Test(2, (0,), _NEW_FILE),), errno.EDQUOT),
    _Rule("renameat2:316:276", (_Test(4, (0,), _WHITEOUT),), errno.EDQUOT),
)
_ATTRIBUTES = (
    _Rule("chmod:90:- fchmod:91:52", (_Test(1, (0,), _SET_ID),)),
    _Rule("fchmodat:268:53 fchmodat2:452:452", (_Test(2, (0,), _SET_ID),)),
    _Rule("utime:132:- utimes:235:- utimensat:280:88 futimesat:261:-", ()),
)

_LOAD, _AND, _EQUAL, _GREATER, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # on x86_64, greater numbers belong to another table
_Instruction = tuple[int, int, int, int]  # operation, jump if true, jump if false, constant


def program(
    signals: Signals, process: int = 0, *, attributes: bool = True, creates: bool = True, machine: str = ""
) -> bytes:
    """Make the filter, as an array of `struct sock_filter`.

    Args:
        process: with `self`, the process to which signals may be sent.
        attributes: whether modes and times of files can be changed. Landlock does not protect those of other files. So
            if nothing else does, the calls succeed without effect; an error would break `shutil.copy`.
        creates: whether files, folders and links can be made. If not, existing files can still be removed, and be
            written to if they are opened without O_CREAT.
        machine: the machine whose numbers are used; "": this one.

    Raises:
        OSError: there is no table of system calls for this machine.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(f"no table of system calls for {machine}")
    column = 1 + list(ARCHITECTURES).index(machine)
    rules, plain = _RULES, _ALLOWED
    if creates:
        rules, plain = rules + _CREATES, plain + _MAKING
    else:
        rules += _CREATES_NOTHING
    rules += _ATTRIBUTES if attributes else tuple(_Rule(rule.calls, None, 0) for rule in _ATTRIBUTES)
    if signals == "tree":
        plain += _TREE_SIGNALS
    else:
        rules += (_Rule(_SELF_SIGNALS, (_Test(0, (process,)),)),)
    code: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    code += [(_EQUAL, 1, 0, ARCHITECTURES[machine]), _refuse(errno.EPERM)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    code += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.EPERM)]
    for rule in rules:
        for number in _numbers(rule.calls, column):
            body = _tests(rule)
            code += [(_EQUAL, 0, len(body), number), *body]
    for first, last in _ranges(_numbers(plain, column)):
        # The ranges are sorted, so a number that is not above this range is either in it or not on the list.
        code += [(_GREATER, 3, 0, last), (_AT_LEAST, 0, 1, first), (_RETURN, 0, 0, _ALLOW), _refuse(errno.EPERM)]
    code += [_refuse(errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def load(code: bytes) -> None:
    """Apply the filter to all threads and child processes of this process. It cannot be removed.

    Raises:
        OSError: this Linux cannot filter system calls.
    """

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    number = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)  # seccomp(2)
    set_filter, all_threads, no_new_privileges = 1, 1, 38
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    given = Program(len(code) // 8, code)
    if libc.syscall(ctypes.c_long(number), set_filter, all_threads, ctypes.byref(given)):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _tests(rule: _Rule) -> list[_Instruction]:
    """The instructions of a rule. They always end with a decision: allow or refuse."""
    if rule.tests is None:
        return [_refuse(rule.otherwise)]
    code: list[_Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for test in reversed(rule.tests):
        ahead = [_refuse(rule.otherwise), *code]
        equal: list[_Instruction] = [
            (_EQUAL, len(test.values) - place, 0, value) for place, value in enumerate(test.values)
        ]
        mask: list[_Instruction] = [(_AND, 0, 0, test.mask)] if test.mask != 0xFFFFFFFF else []
        code = [(_LOAD, 0, 0, _ARGUMENTS + 8 * test.argument), *mask, *equal, *ahead]
    return code


def _refuse(error: int) -> _Instruction:
    return (_RETURN, 0, 0, _ERROR | error)


def _numbers(table: str, column: int) -> list[int]:
    found = (entry.split(":")[column] for entry in table.split())
    return sorted(int(number) for number in found if number != "-")


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers: first and last of each."""
    runs = (list(run) for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return [(run[0][1], run[-1][1]) for run in runs]
