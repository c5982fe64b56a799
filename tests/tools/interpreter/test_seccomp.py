"""The filter of system calls: what it decides is simulated, and compared with libseccomp's program of the same list."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from chatglm.tools.interpreter import seccomp

MACHINES = tuple(seccomp.ARCHITECTURES)
ALLOW = 0x7FFF0000
NEW_USER, NEW_NET, NEW_TIME = 0x10000000, 0x40000000, 0x80
TIOCSTI, TIOCLINUX = 0x5412, 0x541C


def decide(program: bytes, number: int, arguments: tuple[int, ...] = (), machine: str = "x86_64") -> int:
    """What the kernel would do: run a program over `struct seccomp_data` (linux/seccomp.h, linux/bpf_common.h)."""
    given = (*arguments, *(0,) * 6)[:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, seccomp.ARCHITECTURES[machine], 0, *given)
    instructions = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = register = 0
    while True:
        operation, then, other, constant = instructions[at]
        at += 1
        if operation == 0x20:
            register = struct.unpack_from("=I", data, constant)[0]
        elif operation == 0x54:
            register &= constant
        elif operation == 0x05:
            at += constant
        elif operation in (0x15, 0x25, 0x35, 0x45):
            holds = {
                0x15: register == constant,
                0x25: register > constant,
                0x35: register >= constant,
                0x45: bool(register & constant),
            }[operation]
            at += then if holds else other
        elif operation == 0x06:
            return int(constant)
        else:
            raise AssertionError(f"unknown operation {operation:#x}")


def error(decision: int) -> int | None:
    """The number of the error; None: allowed."""
    if decision == ALLOW:
        return None
    assert decision >> 16 == 0x0005, hex(decision)
    return decision & 0xFFFF


def numbers(machine: str) -> dict[str, int]:
    """Every call that our tables name."""
    column = 1 + MACHINES.index(machine)
    rules = (*seccomp._RULES, *seccomp._ATTRIBUTES, *seccomp._CREATES)
    text = " ".join((seccomp._ALLOWED, seccomp._MAKING, seccomp._TREE_SIGNALS, *(rule.calls for rule in rules)))
    entries = (entry.split(":") for entry in text.split())
    return {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}


def rules_of(signals: seccomp.Signals, attributes: bool, creates: bool) -> list[tuple[str, Any]]:
    """Names and tests, as the module has them: (name, tests); tests are None where the call is never allowed."""
    rules = (*seccomp._RULES, *(seccomp._CREATES if creates else seccomp._CREATES_NOTHING))
    rules += seccomp._ATTRIBUTES if attributes else ()
    found: list[tuple[str, Any]] = [(call.split(":")[0], rule.tests) for rule in rules for call in rule.calls.split()]
    if signals == "self":
        found += [(name, (seccomp._Test(0, (77,)),)) for name in ("kill", "tgkill")]
    plain = seccomp._ALLOWED + (seccomp._MAKING if creates else "")
    plain += seccomp._TREE_SIGNALS if signals == "tree" else ""
    return found + [(entry.split(":")[0], ()) for entry in plain.split()]


def by_libseccomp(machine: str, rules: list[tuple[str, Any]]) -> tuple[bytes, dict[str, int]]:
    """Its program for the same rules, and its numbers of the calls that it knows."""
    pyseccomp = pytest.importorskip("pyseccomp")
    arch = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[machine]
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    if machine != os.uname().machine:
        made.add_arch(arch)
        made.remove_arch(pyseccomp.Arch.NATIVE)
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(errno.EPERM))
    known = {}
    for name, tests in rules:
        try:
            number = pyseccomp.resolve_syscall(arch, name)
        except ValueError:
            continue
        if number < 0:  # not on this machine
            continue
        known[name] = number
        for values in itertools.product(*(test.values for test in tests)) if tests is not None else ():
            arguments = [
                pyseccomp.Arg(test.argument, pyseccomp.MASKED_EQ, test.mask, value)
                for test, value in zip(tests, values, strict=True)
            ]
            made.add_rule(pyseccomp.ALLOW, name, *arguments)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read(), known


def arguments_for(tests: Any) -> Iterator[tuple[int, ...]]:
    """Arguments at and around what a rule tells apart, with and without bits that the kernel does not read."""
    yield (0,) * 6
    yield (2**64 - 1,) * 6
    for test in tests or ():
        wrong = [0, 1, 2, 3, 10, 0x29, TIOCSTI, TIOCLINUX, NEW_USER, NEW_TIME, 0o4755, 0o2755, 2**32 - 1]
        near = [value + step for value in test.values for step in (-1, 0, 1)]
        bits = [1 << bit for bit in range(32)]
        for value, high in itertools.product({*wrong, *near, *bits}, (0, 1 << 32)):
            others = [next((other.values[0] for other in tests if other.argument == place), 0) for place in range(6)]
            others[test.argument] = (value & 0xFFFFFFFF) | high
            yield tuple(others)


@pytest.mark.parametrize(
    ("signals", "attributes", "creates"),
    [*itertools.product(("tree", "self"), (True, False), (True,)), ("tree", True, False)],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_decides_as_libseccomps_program(
    machine: str, signals: seccomp.Signals, attributes: bool, creates: bool
) -> None:
    ours = seccomp.program(signals, 77, attributes=attributes, creates=creates, machine=machine)
    rules = rules_of(signals, attributes, creates)
    theirs, known = by_libseccomp(machine, rules)
    tests = {numbers(machine)[name]: tests for name, tests in rules if name in numbers(machine)}
    newer = {numbers(machine)[name] for name, _ in rules if name in numbers(machine) and name not in known}
    assert len(known) > 150
    assert all(number > 440 for number in newer), "libseccomp does not know an old call: is its name right?"
    for name, number in known.items():
        assert numbers(machine)[name] == number, name
    for number in range(601):
        for arguments in arguments_for(tests.get(number)):
            ours_allows = error(decide(ours, number, arguments, machine)) is None
            if number not in newer:
                theirs_allows = error(decide(theirs, number, arguments, machine)) is None
                assert ours_allows == theirs_allows, (number, [hex(argument) for argument in arguments])


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_of_other_tables_are_refused(machine: str) -> None:
    program = seccomp.program("tree", machine=machine)
    other = next(name for name in MACHINES if name != machine)
    for number in range(601):
        assert error(decide(program, number, machine=other)) == errno.EPERM
        assert error(decide(program, 0x40000000 | number, machine=machine)) == errno.EPERM
        assert error(decide(program, 601 + number, machine=machine)) == errno.EPERM
    assert error(decide(program, -1, machine=machine)) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused_and_what_is_not(machine: str) -> None:
    """A list of its own, by the numbers of the manual."""
    program = seccomp.program("tree", machine=machine)
    column = MACHINES.index(machine)

    def asked(x86_64: int, aarch64: int, *arguments: int) -> int | None:
        return error(decide(program, (x86_64, aarch64)[column], arguments, machine))

    assert asked(0, 63) is None  # read
    assert asked(41, 198, 1, 1) == errno.EPERM  # socket(AF_UNIX, SOCK_STREAM)
    assert asked(53, 199, 1, 1) is None  # socketpair(AF_UNIX, SOCK_STREAM)
    assert asked(53, 199, 1, 1 | 0o2004000) is None  # … | SOCK_CLOEXEC | SOCK_NONBLOCK
    assert asked(53, 199, 1, 2) == errno.EPERM  # SOCK_DGRAM
    assert asked(53, 199, 1, 5) == errno.EPERM  # SOCK_SEQPACKET
    assert asked(53, 199, 16, 1) == errno.EPERM  # AF_NETLINK
    assert asked(56, 220, 17) is None  # clone(SIGCHLD)
    assert asked(56, 220, 0x3D0F00) is None  # a thread
    assert asked(56, 220, 0x3D0B00) == errno.EPERM  # one without CLONE_FILES
    assert asked(56, 220, 0x400 | 17) is None  # a process that shares its open files
    assert asked(436, 436, 3, 9, 0) is None  # close_range
    assert asked(436, 436, 3, 9, 4) is None  # CLOSE_RANGE_CLOEXEC
    assert asked(436, 436, 3, 9, 2) == asked(436, 436, 3, 9, 6) == errno.EPERM  # CLOSE_RANGE_UNSHARE
    assert asked(44, 206) is None  # sendto
    assert asked(46, 211) == asked(307, 269) == errno.EPERM  # sendmsg, sendmmsg
    for flag in (NEW_USER, NEW_NET, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000):
        assert asked(56, 220, flag | 17) == errno.EPERM
    assert asked(435, 435) == errno.ENOSYS  # clone3
    assert asked(437, 437) == errno.ENOSYS  # openat2
    for request in (TIOCSTI, TIOCLINUX, TIOCSTI | 1 << 32, 0x540E, 0x8901, 0x40086602):
        assert asked(16, 29, 1, request) == errno.ENOTTY
    assert asked(16, 29, 1, 0x5401) is None  # isatty
    assert asked(157, 167, 15) is None  # PR_SET_NAME
    for option in (1, 4, 22, 24, 28, 35, 36, 0x59616D61):
        assert asked(157, 167, option) == errno.EPERM
    for command in (8, 10, 15, 1024, 1026, 1031):  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
        assert asked(72, 25, 3, command) == errno.EPERM
    assert asked(257, 56, 0, 0, 0, 0o666) is None  # openat
    assert asked(257, 56, 0, 0, 0o101, 0o4755) == errno.EPERM
    assert asked(302, 261, 0) is None  # prlimit64 of oneself
    assert asked(302, 261, 1234) == errno.EPERM
    assert asked(101, 117) == asked(425, 425) == asked(321, 280) == asked(319, 279) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_without_namespaces_signals_reach_oneself_and_attributes_stay(machine: str) -> None:
    program = seccomp.program("self", 77, attributes=False, machine=machine)
    calls = numbers(machine)

    def asked(name: str, *arguments: int) -> int | None:
        return error(decide(program, calls[name], arguments, machine))

    for name in ("kill", "tgkill"):
        assert asked(name, 77) is None
        for other in (0, 1, 78, 2**32 - 1):
            assert asked(name, other) == errno.EPERM
    for name in ("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"):
        assert asked(name, 77) == errno.EPERM
    for name in ("fchmod", "fchmodat", "fchmodat2", "utimensat"):
        assert asked(name) == 0  # it "succeeds", and does nothing


@pytest.mark.parametrize("machine", MACHINES)
def test_where_nothing_can_be_made_existing_files_can_be_written_and_removed(machine: str) -> None:
    program = seccomp.program("tree", creates=False, machine=machine)
    column = MACHINES.index(machine)

    def asked(x86_64: int, aarch64: int, *arguments: int) -> int | None:
        return error(decide(program, (x86_64, aarch64)[column], arguments, machine))

    assert asked(257, 56, 0, 0, 0o1002) is None  # openat(O_RDWR | O_TRUNC)
    assert asked(257, 56, 0, 0, 0o200000) is None  # O_DIRECTORY
    assert asked(257, 56, 0, 0, 0o101, 0o600) == errno.EDQUOT  # O_WRONLY | O_CREAT
    assert asked(257, 56, 0, 0, 0o20200002, 0o600) == errno.EDQUOT  # O_TMPFILE | O_RDWR
    assert asked(263, 35) is None  # unlinkat
    assert asked(264, 38) is asked(316, 276, 0, 0, 0, 0, 1) is None  # renameat; renameat2(RENAME_NOREPLACE)
    assert asked(316, 276, 0, 0, 0, 0, 4) == errno.EDQUOT  # RENAME_WHITEOUT
    assert asked(258, 34) == asked(265, 37) == asked(266, 36) == errno.EDQUOT  # mkdirat, linkat, symlinkat
    assert asked(259, 33) == errno.EPERM  # mknodat


def test_a_machine_without_a_table_is_said() -> None:
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        seccomp.program("tree", machine="riscv64")
