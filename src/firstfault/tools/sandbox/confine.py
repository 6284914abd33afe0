"""What code in the sandbox may not do, as far as a process can bind itself on Linux: see `../python.py` for all of it.

Everything here needs no rights, holds for all later children, and can't be taken back.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 4, 38, 41
CAPABILITIES_3 = 0x20080522  # the version of capset's structure
LANDLOCK_CREATE, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT = 444, 445, 446  # the same numbers on every architecture

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}
SECCOMP, CLONE, CLONE3, PRLIMIT = (317, 277), (56, 220), (435, 435), (302, 261)
SOCKETPAIR, MMAP, FCNTL, IOCTL = (53, 199), (9, 222), (72, 25), (16, 29)
SET_OWNER, IOCTL_SET_OWNER = (8, 15), (0x8901, 0x8902)  # F_SETOWN, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP
# Numbers on x86_64 and aarch64, from the kernel's unistd.h; None where there is no such call.
FORBIDDEN = {
    # other programs
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    # other processes
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "setpgid": (109, 154), "setsid": (112, 157),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    # the network, and all else by which processes can meet
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191),
    "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # what Landlock does not cover of files
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "truncate": (76, 45), "flock": (73, 32), "inotify_init": (253, None),
    "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "sync": (162, 81), "syncfs": (306, 267),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # the system, and the parts of the kernel that programs need least and exploits use most
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "personality": (135, 92), "seccomp": SECCOMP, "syslog": (103, 116),
    "memfd_secret": (447, 447),
}  # fmt: skip


def confine(visible: list[str]) -> tuple[bool, int | None]:
    """Bind this process; returns whether files are safe from it, and where it asks for new processes and threads.

    It can read what is in the folders `visible`, and write to nothing.

    The latter is a descriptor of the seccomp listener, whose owner decides on every `clone`; None where the system has
    no seccomp or one without listeners.
    """
    if sys.platform != "linux":
        return False, None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(struct.pack("Ii", CAPABILITIES_3, 0), bytes(24))  # none, as root neither
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a fork that touches a byte should copy a page, not 512
    files = close_files(libc, visible)
    listener = filter_calls(libc)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # its memory is closed to others, its forks included
    return files, listener


def close_files(libc: ctypes.CDLL, visible: list[str]) -> bool:
    """With Landlock: no file but /dev/null can be written, made or removed, and few can be read."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    write, read_file, read_folder = 1 << 1, 1 << 2, 1 << 3
    execute, remove_and_make, refer, truncate = 1 << 0, 0b1_1111_1111 << 4, 1 << 13, 1 << 14
    rights = execute | write | read_file | read_folder | remove_and_make
    rights |= (refer if version >= 2 else 0) | (truncate if version >= 3 else 0)
    ruleset = libc.syscall(LANDLOCK_CREATE, struct.pack("Q", rights), 8, 0)
    allowed = {"/dev/null": read_file | write, "/dev/urandom": read_file}
    allowed |= {path: read_file | read_folder for path in visible if os.path.isdir(path)}
    for path, right in allowed.items():
        descriptor = os.open(path, os.O_PATH)
        libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", right, descriptor), 0)
        os.close(descriptor)
    done = libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return done


# The filter is a program of classic BPF that sees the number of a system call and its arguments.
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
ALLOW, NOTIFY, REFUSE, KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16


def filter_calls(libc: ctypes.CDLL) -> int | None:
    """With seccomp: refuse the system calls of `FORBIDDEN`, and have a listener asked about new processes."""
    machine = platform.machine()
    if machine not in COLUMN:
        return None
    column = COLUMN[machine]

    def when(condition: int, value: int, *then: bytes) -> bytes:
        return operation(condition, value, 0, sum(map(len, then)) // 8) + b"".join(then)

    refuse = operation(RETURN, REFUSE | errno.EPERM)
    program = [
        operation(LOAD, ARCHITECTURE),
        operation(EQUAL, AUDIT_ARCH[machine], 1, 0), operation(RETURN, KILL),
        operation(LOAD, NUMBER),
        when(AT_LEAST, 0x40000000, refuse),  # the numbers of x32, a second door to the same calls
        *(when(EQUAL, numbers[column], refuse) for numbers in FORBIDDEN.values() if numbers[column] is not None),
        when(EQUAL, CLONE[column], operation(RETURN, NOTIFY)),
        when(EQUAL, CLONE3[column], operation(RETURN, REFUSE | errno.ENOSYS)),  # glibc then takes clone
        # the limits of other processes: not even lower ones
        when(EQUAL, PRLIMIT[column], operation(LOAD, ARGUMENTS), operation(EQUAL, 0, 1, 0), refuse),
        operation(LOAD, NUMBER),
        # only pairs of local streams, which asyncio needs: datagrams can be sent to others than their twin
        when(EQUAL, SOCKETPAIR[column], operation(LOAD, ARGUMENTS), operation(EQUAL, 1, 1, 0), refuse,
             operation(LOAD, ARGUMENTS + 8), operation(AND, 0xF), operation(EQUAL, 1, 1, 0), refuse),
        operation(LOAD, NUMBER),
        # who owns a file is sent signals of the owner's choice
        when(EQUAL, FCNTL[column], operation(LOAD, ARGUMENTS + 8), *(when(EQUAL, c, refuse) for c in SET_OWNER)),
        operation(LOAD, NUMBER),
        when(EQUAL, IOCTL[column], operation(LOAD, ARGUMENTS + 8), *(when(EQUAL, c, refuse) for c in IOCTL_SET_OWNER)),
        operation(LOAD, NUMBER),
        # memory that forks would share (MAP_SHARED and MAP_ANONYMOUS)
        when(EQUAL, MMAP[column], operation(LOAD, ARGUMENTS + 24), operation(AND, 0x21), when(EQUAL, 0x21, refuse)),
        operation(RETURN, ALLOW),
    ]  # fmt: skip
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    set_filter, new_listener = 1, 1 << 3
    listener = libc.syscall(SECCOMP[column], set_filter, new_listener, header)
    return None if listener < 0 else listener


def operation(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
