"""Hostile programs against the Python tool, by someone who has read its code; `tools/test_attacks.py` runs them.

Each is a list of calls of one session and how each must end: "raised", "died", "timed out", "too much output" or
"answered", and a pattern for all of what it says. A call that is not followed by another one is followed by `x`, which
must still be 17, unless the code has spoiled its own interpreter.
"""

import re

# What the session of every attack begins with.
PRELUDE = """
import ctypes, os, platform, re, signal, socket, struct, sys, threading, time
x = 17
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
loop = "while True: pass"

def sys_call(*numbers):
    "A system call by its numbers; its result, or minus the error's number."
    result = libc.syscall(*[ctypes.c_long(number) if isinstance(number, int) else number for number in numbers])
    return -ctypes.get_errno() if result == -1 else result

def tried(*attempts):
    "Those attempts that did not fail."
    done = []
    for number, attempt in enumerate(attempts):
        try:
            result = attempt()
            if not isinstance(result, int) or result >= 0:
                done.append((number, result))
        except (OSError, ValueError, RuntimeError):
            pass
    return done

def serving():
    "The frame in which the interpreter serves requests: its variables are the sockets."
    frame = sys._getframe()
    while frame.f_code.co_name != "serve":
        frame = frame.f_back
    return frame.f_locals
"""
Calls = list[tuple[str, str, str]]
NOTHING = r"\[\]"  # nothing that was tried has worked
BROKEN = ("x", "died", "Error: an earlier call has broken the interpreter; .*")
SPOILED = ("x", "answered|died|raised|sandbox", r"(.|\n)*")  # whatever it says: only this session hears it


def refused(code: str) -> Calls:
    """`tried` says that nothing worked."""
    return [(f"tried({code})", "answered", NOTHING)]


def raises(code: str, error: str) -> Calls:
    return [(code, "raised", rf"(.|\n)*{error}\b.*")]


def dies(code: str) -> Calls:
    return [(code, "died", r"(.|\n)*Error: the code ended its process; .*")]


def hangs(code: str) -> Calls:
    return [(code, "timed out", r"(.|\n)*Error: stopped after .*")]


def works(code: str, said: str = r"\(no output\)") -> Calls:
    return [(code, "answered", said)]


def spoils(code: str) -> Calls:
    """What the code changes may break its own interpreter from the next call on, and no other."""
    return [(code, "answered|died|raised", "(.|\n)*"), SPOILED]


PROCESSES = {
    "fork": raises("os.fork()", "PermissionError"),
    "fork, by number": refused("lambda: sys_call(220 if arm else 56, 17, 0, 0, 0, 0)"),
    "fork, by all flags": refused(
        "*[lambda flag=flag: sys_call(220 if arm else 56, 17 | 1 << flag, 0, 0, 0, 0)"
        " for flag in range(8, 33) if flag not in (8, 14, 16)]"
    ),
    "clone3": refused("lambda: sys_call(435, struct.pack('11Q', *[0] * 4, 17, *[0] * 6), 88)"),
    "vfork": refused("lambda: libc.vfork()"),
    "the calls of x32": refused("lambda: sys_call(0x40000000 + 39), lambda: sys_call(0x40000000 + 57)"),
    "subprocess": raises("import subprocess; subprocess.run(['true'])", "PermissionError"),
    "posix_spawn": raises("os.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
    "multiprocessing": raises("import multiprocessing; multiprocessing.Pool(2)", "(PermissionError|FileNotFoundError)"),
    "exec": raises("os.execv('/usr/bin/env', ['env'])", "PermissionError"),
    "exec of setuid programs": refused(
        "*[lambda name=name: os.execv('/usr/bin/' + name, [name]) for name in ('su', 'sudo', 'mount', 'passwd')]"
    ),
    "exec from memory": raises(
        "source = open('/usr/bin/env', 'rb').read()\nfile = os.memfd_create('env')\nos.write(file, source)\n"
        "os.execve(file, ['env'], {})",
        "OSError",
    ),
    "thread bomb": works(
        "threads = []\ntry:\n    while True:\n        threads.append(threading.Thread(target=time.sleep, args=(60,)))\n"
        "        threads[-1].start()\nexcept RuntimeError:\n    pass\nlen(threads) <= 64",
        "True",
    ),
    "thread bomb of tiny stacks": works(
        "threading.stack_size(32768)\ntry:\n    while True: threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "except RuntimeError:\n    pass\nthreading.active_count() <= 64",
        "True",
    ),
    "threads that never end": works(
        "threading.stack_size(65536)\n"
        "for _ in range(8): threading.Thread(target=exec, args=(loop, {}), daemon=True).start()"
    ),
    "threads that fork": works("threading.Thread(target=lambda: tried(os.fork)).start()"),
    "signals to others": refused(
        "*[lambda pid=pid: os.kill(pid, 0) for pid in (-1, 0, 1, 2, 3, os.getppid(), HOST)],"
        "lambda: os.killpg(0, 0), lambda: libc.tgkill(1, 1, 0), lambda: libc.sigqueue(1, 0, 0),"
        "lambda: sys_call(434, 1, 0), lambda: signal.pthread_kill(threading.get_ident(), 0)"
    ),
    "signals by files": works("ours, theirs = os.pipe()\nimport fcntl\nfcntl.fcntl(ours, 10, 0)", "0")
    + refused(
        "*[lambda pid=pid: fcntl.fcntl(ours, 8, pid) for pid in (1, 2, 3, os.getppid(), os.getpid(), HOST)],"
        "lambda: fcntl.fcntl(ours, 15, struct.pack('2i', 1, HOST)), lambda: sys_call(25 if arm else 72, ours, 8, HOST),"
        "lambda: fcntl.ioctl(ours, 0x8901, struct.pack('i', HOST)),"
        "lambda: fcntl.ioctl(ours, 0x8902, struct.pack('i', HOST))"
    ),
    "shared memory, semaphores and messages of others": works(  # "not permitted", and not "no such"
        "calls = range(186, 197) if arm else [29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 220]\n"
        "{sys_call(number, 99999, 0, 0, 0) for number in calls}",
        r"\{-1\}",
    ),
    "signals to itself": refused("lambda: os.kill(os.getpid(), signal.SIGSTOP), lambda: signal.raise_signal(19)"),
    "memory of others": refused(
        "*[lambda pid=pid: libc.process_vm_readv(pid, 0, 0, 0, 0, 0) for pid in (1, 2, os.getppid(), HOST)],"
        "*[lambda pid=pid: libc.process_vm_writev(pid, 0, 0, 0, 0, 0) for pid in (1, 2, os.getppid(), HOST)],"
        "*[lambda pid=pid: libc.ptrace(16, pid, 0, 0) for pid in (1, 2, os.getppid(), HOST)], lambda: libc.ptrace(0)"
    ),
    "memory of others, once it may be dumped": works("libc.prctl(4, 1, 0, 0, 0)", "0")
    + refused("lambda: open('/proc/self/mem'), lambda: open('/proc/1/mem'), lambda: libc.ptrace(0x4206, 1, 0, 0)"),
    "limits of others": refused(
        "*[lambda pid=pid: libc.prlimit(pid, 7, struct.pack('2Q', 0, 0), None) for pid in (1, os.getppid(), HOST)],"
        "lambda: os.sched_setaffinity(1, {0}), lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),"
        "lambda: os.setpriority(os.PRIO_USER, 0, 19), lambda: os.setpgid(0, 0), lambda: os.setsid()"
    ),
    "its own limits": refused(
        "*[lambda limit=limit: __import__('resource').setrlimit(limit, (-1, -1)) for limit in (0, 1, 7, 9, 11)]"
    ),
    "rights": works(
        "data = ctypes.create_string_buffer(24)\nlibc.capget(struct.pack('Ii', 0x20080522, 0), data)\nany(data.raw)",
        "False",
    )
    + refused(
        "lambda: libc.unshare(1 << 28), lambda: libc.unshare(1 << 30), lambda: libc.setns(0, 0),"
        "lambda: libc.mount(b'none', b'/', b'tmpfs', 0, None), lambda: libc.umount2(b'/proc', 2),"
        "lambda: libc.chroot(b'/'), lambda: libc.personality(0), lambda: libc.klogctl(3, None, 0),"
        "lambda: libc.sethostname(os.uname().nodename.encode(), len(os.uname().nodename)),"
        "lambda: libc.acct(None), lambda: libc.swapoff(b'/dev/null')"
    ),
    "the kernel's back rooms": refused(
        "*[lambda n=n: sys_call(n, *[0] * 5)"
        " for n in ((280, 241, 282, 217, 219) if arm else (321, 298, 323, 248, 250))],"
        "lambda: sys_call(425, 8, ctypes.create_string_buffer(120)), lambda: libc.fanotify_init(0, 0),"
        "lambda: libc.inotify_init(), lambda: sys_call(81 if arm else 162), lambda: sys_call(447, 0)"
    ),
}
FILES_AND_NETWORK = {
    "host files": refused(
        "*[lambda path=path: open(path) for path in (CANARY, '/proc/self/root' + CANARY, '/usr/..' + CANARY,"
        " '/etc/passwd', '/etc/shadow', '/root/.bashrc', '/usr/../etc/hosts', '/dev/mem', '/dev/tty', '/dev/kmsg')],"
        "lambda: os.listdir(os.path.dirname(CANARY)), lambda: os.listdir('/root'), lambda: os.listdir('/')"
    ),
    "host files, written": refused(
        "lambda: open(CANARY, 'w'), lambda: os.truncate(CANARY, 0), lambda: os.remove(CANARY),"
        "lambda: os.chmod(CANARY, 0),"
        "lambda: os.rename(CANARY, CANARY + '2'), lambda: os.link(CANARY, CANARY + '2'), lambda: os.utime(CANARY),"
        "lambda: os.setxattr(CANARY, 'user.a', b'1'), lambda: os.chown(CANARY, 1, 1),"
        "lambda: os.open(CANARY, os.O_RDWR)"
    ),
    "new files": refused(
        "*[lambda folder=folder, make=make: make(folder + '/attack') for folder in (os.path.dirname(CANARY), '/tmp',"
        " '/var/tmp', '/dev/shm', '/dev', '/run', '/', '.', sys.prefix, '/usr', '/proc/self',"
        " os.path.dirname(os.__file__))"
        " for make in (os.mkdir, os.mkfifo, lambda path: os.symlink('/etc', path),"
        " lambda path: os.link(os.__file__, path),"
        " lambda path: open(path, 'w'), lambda path: os.open(path[:-7], os.O_TMPFILE | os.O_RDWR))]"
    ),
    "disk filling": raises(
        "import tempfile\nfile = tempfile.TemporaryFile()\nwhile True: file.write(bytes(1 << 20))",
        "(FileNotFoundError|PermissionError)",
    ),
    "memory as a disk": refused(
        "lambda: os.write(os.memfd_create('a'), b'a'), lambda: os.ftruncate(os.memfd_create('b'), 1),"
        "lambda: os.posix_fallocate(os.memfd_create('c'), 0, 1 << 30)"
    ),
    "locks on files": refused("lambda: __import__('fcntl').flock(open(os.__file__), 2)"),
    "environment": works(
        "libc.getenv.restype = ctypes.c_char_p\ndict(os.environ), libc.getenv(b'SECRET'), libc.getenv(b'HOME')",
        r"\({}, None, None\)",
    ),
    "/proc": refused(
        "*[lambda pid=pid, name=name: open(f'/proc/{pid}/{name}', 'rb').read()"
        " for pid in (1, 'self', os.getppid(), HOST)"
        " for name in ('environ', 'mem', 'maps', 'cmdline', 'root/etc/passwd', 'fd/9', 'stat')],"
        "lambda: open('/proc/self/oom_score_adj', 'w'), lambda: open('/proc/sys/kernel/hostname', 'w'),"
        "lambda: open('/proc/sysrq-trigger', 'w'), lambda: os.listdir('/proc'), lambda: os.listdir('/proc/self/fd')"
    ),
    "sockets of every family": refused(
        "*[lambda family=family, kind=kind: socket.socket(family, kind).fileno() for family in range(46)"
        " for kind in range(1, 6)], lambda: socket.create_connection(('127.0.0.1', PORT), 1)"
    ),
    "pairs of sockets": refused(
        "*[lambda family=family, kind=kind: socket.socketpair(family, kind) for family in range(46)"
        " for kind in range(1, 6) if (family, kind) != (1, 1)]"
    ),
    "names by which processes meet": refused(
        "lambda: libc.shmget(0, 4096, 0o1777), lambda: libc.semget(0, 1, 0o1777), lambda: libc.msgget(0, 0o1777),"
        "lambda: libc.mq_open(b'/attack', 66, 0o777, None), lambda: libc.shm_open(b'/attack', 66, 0o777),"
        "lambda: socket.socketpair()[0].bind('\\0attack'), lambda: socket.socketpair()[0].listen()"
    ),
    "memory shared with forks": raises("import mmap; mmap.mmap(-1, 4096)", "PermissionError"),
}
RESOURCES = {
    "memory bomb": raises("a = []\nwhile True: a.append(bytes(1 << 20))", "MemoryError"),
    "address space": raises(
        "import mmap; mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)", "OSError"
    ),
    "memory that can't be swapped": works("libc.mlockall(3) in (0, -1)", "True"),
    "zip bomb": raises(
        "import zlib\npacker = zlib.compressobj()\n"
        "bomb = b''.join(packer.compress(bytes(1 << 20)) for _ in range(200))\n"
        "zlib.decompress(bomb + packer.flush())",
        "MemoryError",
    ),
    "open files": works(
        "files = []\ntry:\n    while True: files.append(os.open('/dev/null', os.O_RDONLY))\nexcept OSError: pass\n"
        "held = len(files)\nfor file in files: os.close(file)\nheld < 64",
        "True",
    ),
    "open files, kept": spoils("try:\n    while True: os.open('/dev/null', os.O_RDONLY)\nexcept OSError: pass"),
    "full pipes": works(
        "pipes = [os.pipe() for _ in range(20)]\nfor _, end in pipes:\n    os.set_blocking(end, False)\n"
        "    try:\n        while True: os.write(end, bytes(65536))\n    except BlockingIOError: pass"
    ),
    "descriptors in flight": works(
        "a, b = socket.socketpair()\na.setblocking(False)\ntry:\n    while True: socket.send_fds(a, [b'a'], [1] * 50)\n"
        "except OSError: pass"
    ),
    "endless output": [
        ("while True: os.write(1, bytes(65536))", "too much output", r"(.|\n)*it printed more than 65536 bytes; .*")
    ],
    "huge output of threads": [
        (
            "import _thread\nthreading.stack_size(65536)\n"
            "for _ in range(4): _thread.start_new_thread(exec, ('while 1: print(\"a\" * 9999)', {}))\n"
            "time.sleep(60)",
            "too much output",
            r"(.|\n)*it printed more than 65536 bytes; .*",
        )
    ],
    "a pipe made larger": works(
        "import fcntl\ntry: fcntl.fcntl(1, 1031, 1 << 20)\nexcept PermissionError: pass  # there are too many already\n"
        "os.write(1, b'a' * 60000); None",
        "(.|\n)*",
    ),
    "deep recursion": raises("def f(): return f()\nf()", "RecursionError"),
    "deep recursion in C": dies(
        "sys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(self, name): return getattr(self, name)\nA().b"
    ),
    "deep nesting": raises("a = []\nfor _ in range(10**6): a = [a]\nrepr(a)", "RecursionError"),
    "deep syntax": raises("compile('-' * 10**6 + '1', '', 'eval')", "(MemoryError|RecursionError|SyntaxError)"),
    "timers": works(
        "signal.signal(14, lambda *_: os._exit(1)); signal.alarm(1); signal.setitimer(2, 0.001, 0.001)", ".*"
    )
    + works("time.sleep(0.05); x", "17"),
    "many timers": works(
        "made = 0\nwhile made < 99 and libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0: made += 1\n"
        "made <= 65",
        "True",
    ),
    "a timer that outlives its call": spoils(
        "timer = ctypes.c_void_p()\nlibc.timer_create(1, None, ctypes.byref(timer))\n"
        "libc.timer_settime(timer, 0, struct.pack('4q', 0, 1000, 0, 1000), None)"
    ),
    "a crash": dies("ctypes.string_at(0)"),
    "a crash of the interpreter": dies(
        "import types\ncode = (lambda: 0).__code__\neval(code.replace(co_code=bytes([255, 255] * 9), co_stacksize=0))"
    ),
    "overwritten memory": dies("ctypes.memset(id(None), 255, 64); ctypes.memset(id(int), 255, 400)"),
}
ENDLESS = {  # these take as long as the time limit lets them, and run side by side, the longest ones first
    "a request that is not served": [
        *works("def wait(*_): time.sleep(60)\nsocket.recv_fds = wait"),
        BROKEN,
    ],
    "an answer, and no end": [
        *works("serving()['control'].send(b'f')\nwhile True: pass"),
        BROKEN,
    ],
    "a loop": hangs("while True: pass"),
    "a loop in C": hangs("9 ** 10 ** 8"),
    "a regular expression": hangs("re.match('(a+)+b', 'a' * 40)"),
    "digits": hangs("sys.set_int_max_str_digits(0); str(1 << 10**7)"),
    "equal hashes": hangs(
        "class A:\n    __hash__ = lambda self: 0\n    __eq__ = lambda self, other: False\n{A() for _ in range(10**6)}"
    ),
    "fork bomb": hangs("while True: tried(os.fork)"),
    "fork bomb of threads": hangs(
        "while True:\n    try: threading.Thread(target=exec, args=('while 1: tried(os.fork)', globals())).start()\n"
        "    except RuntimeError: pass"
    ),
    "deaf to signals": hangs(
        "for number in set(signal.Signals) - {9, 19}: signal.signal(number, signal.SIG_IGN)\ntime.sleep(60)"
    ),
    "deaf to exceptions": hangs(
        "sys.setrecursionlimit(10**6)\nwhile True:\n    try: 1 / 0\n    except BaseException: pass"
    ),
    "nothing to read": hangs("os.read(os.pipe()[0], 1)"),
    "its own requests": hangs("serving()['control'].recv(100)"),
    "a lock": hangs("lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    "a trace function": hangs("sys.settrace(lambda *_: time.sleep(60))\n(lambda: 0)()"),
    "a last value": hangs("class A:\n    def __repr__(self): time.sleep(60)\nA()"),
    "an error's text": hangs("class A(Exception):\n    def __str__(self): time.sleep(60)\nraise A"),
    "two children for one permit": spoils(
        "real = socket.recv_fds\ndef steal(*request):\n    got = real(*request)\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    return got\nsocket.recv_fds = steal"
    ),
    "a child left behind": spoils(
        "real = socket.recv_fds\ndef steal(*request):\n    real(*request)\n    if os.fork() == 0: time.sleep(60)\n"
        "    os._exit(0)\nsocket.recv_fds = steal"
    ),
    "a child that never speaks": spoils(
        "real = socket.recv_fds\ndef keep(*request):\n    real(*request)\n    os.fork()\n    time.sleep(60)\n"
        "socket.recv_fds = keep"
    ),
}
PROTOCOL = {
    "a forged answer": dies("serving()['control'].send(b'zzzz'); time.sleep(60)"),
    "many answers": dies("serving()['control'].send(b'ffff'); time.sleep(60)"),
    "two answers": spoils("serving()['control'].send(b'f'); None"),
    "a flood of answers": spoils("control = serving()['control']\nwhile True: control.send(b'f')"),
    "an answer with descriptors": spoils("socket.send_fds(serving()['control'], [b'f'], [0, 1, 2] * 80)"),
    "a greeting for another": dies("serving()['control'].send(struct.pack('i', 1)); time.sleep(60)"),
    "forged credentials": refused(
        "*[lambda pid=pid: serving()['control'].sendmsg([b'f'],"
        " [(1, 2, struct.pack('3i', pid, os.getuid(), os.getgid()))])"
        " for pid in (1, 2, os.getppid())]"
    ),
    "lines on all descriptors": dies(
        'line = b\'{"id": %d, "output": "forged", "end": "finished", "pages": 1}\\n\'\n'
        "for id in range(99):\n    for number in range(64): tried(lambda: os.write(number, line % id))\ntime.sleep(60)"
    ),
    "closed descriptors": dies("os.closerange(0, 64); time.sleep(60)"),
    "a closed socket": dies("serving()['control'].close(); time.sleep(60)"),
    "the end, behind its back": dies("os._exit(0)"),
    "hooks in the next call": spoils(
        "def speak():\n    control = serving()['descriptors'][0]\n    os.write(control, struct.pack('i', 1))\n"
        "    os.write(control, b'f')\nos.register_at_fork(after_in_child=speak)"
    ),
    "a base that speaks for its child": spoils(
        "os.register_at_fork(after_in_parent=lambda: os.write(serving()['descriptors'][0], b'fork'))"
    ),
    "a base that keeps what is its child's": works(
        "kept = []\nos.register_at_fork(after_in_parent=lambda: kept.extend(map(os.dup, serving()['descriptors'])))"
    ),
    "a base that answers for its child": spoils(
        "os.register_at_fork(after_in_parent=lambda: [os.write(serving()['descriptors'][0], b'f') for _ in range(9)])"
    ),
    "a permit taken by a thread": works(
        "real = socket.recv_fds\ndef steal(*request):\n    got = real(*request)\n"
        "    thread = threading.Thread(target=lambda: tried(os.fork)); thread.start(); thread.join()\n    return got\n"
        "socket.recv_fds = steal"
    ),
    "a base that dies": spoils("os.register_at_fork(before=lambda: os._exit(0))"),
    "a base that dies after its fork": spoils("os.register_at_fork(after_in_parent=lambda: os._exit(0))"),
    "exit handlers": works("import atexit; atexit.register(time.sleep, 60); None"),
    "no memory for a fork": spoils("import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))"),
    "subreaper": works("libc.prctl(36, 1, 0, 0, 0)", "0"),
}
BUILTINS = {
    f"without {name}": spoils(f"import ast, builtins, gc, json, linecache, random, resource\n{name} = None")
    for name in (
        *("os.fork", "os.close", "os.dup2", "os._exit", "os.getpid", "socket.recv_fds", "socket.socket", "struct.pack"),
        *("json.loads", "ast.parse", "ast.Expr", "random.getstate", "random.setstate", "resource.setrlimit"),
        *("linecache.cache", "signal.setitimer", "sys.modules", "sys.stdout", "sys.__stdout__", "gc.freeze"),
        *("builtins.compile", "builtins.exec", "builtins.eval", "builtins.isinstance", "builtins.type"),
        *("builtins.__build_class__", "builtins.__import__", "builtins.BaseException", "builtins.SystemExit"),
    )
} | {
    "no modules": spoils("sys.modules.clear()"),
    "no main module": spoils("del sys.modules['__main__']"),
    "no variables": spoils("globals().clear()"),
    "lying output": spoils(
        "class Liar:\n    def write(self, text): os.write(1, b'lie')\n"
        "    def flush(self): pass\nsys.__stdout__ = Liar()"
    ),
    "output that raises": spoils(
        "class Liar:\n    def __getattr__(self, name): 1 / 0\nsys.stdout = sys.__stdout__ = Liar()"
    ),
    "closed output": spoils("sys.stdout.close()"),
    "an audit hook": spoils(
        "import itertools\ndef hook(event, _):\n    if event == 'compile': 1 / 0\nsys.addaudithook(hook)"
    ),
    "an import hook": spoils("sys.meta_path.insert(0, None); sys.path_hooks.clear(); sys.path.clear()"),
    "collector callbacks": spoils("import gc; gc.callbacks.append(lambda *_: os._exit(1)); gc.set_threshold(1)"),
    "a profile function": spoils("sys.setprofile(lambda *_: 1 / 0)"),
    "finalizers": spoils("class A:\n    def __del__(self): os._exit(1)\na = A()"),
    "codecs": spoils(
        "import codecs\ncodecs.lookup = codecs.register = None\ncodecs.register_error('strict', lambda _: 1)"
    ),
    "a signal of the sandbox": spoils("signal.signal(signal.SIGCONT, lambda *_: os._exit(1))"),
}
ATTACKS = PROCESSES | FILES_AND_NETWORK | RESOURCES | PROTOCOL | BUILTINS


def holds(expected: tuple[str, str, str], failed: str | None, text: str) -> bool:
    _, ends, said = expected
    return (failed or "answered") in ends.split("|") and re.fullmatch(said, text) is not None
