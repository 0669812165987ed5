"""What the Python drivers share: options, the file of records, and how records are printed."""
import base64, sys, threading


def enc(value):
    return "-" if value is None else "=" + base64.b64encode(value).decode()


def dec(text):
    return None if text == "-" else base64.b64decode(text[1:])


def options():
    """The operation and its key=value words."""
    return sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])


def records(path):
    """Key, value, headers, partition, timestamp (or None) of each line."""
    for line in open(path):
        key, value, headers, partition, timestamp = line.rstrip("\n").split("\t")
        pairs = [(h.split(":", 1)[0], dec(h.split(":", 1)[1])) for h in headers.split(",") if h]
        yield dec(key), dec(value), pairs, int(partition), int(timestamp) or None


_saying = threading.Lock()


def say(*words):
    """One whole line, also where several threads speak."""
    with _saying:
        print("\t".join(map(str, words)), flush=True)


def say_record(partition, offset, timestamp, key, value, headers):
    say("rec", partition, offset, timestamp, enc(key), enc(value), ",".join(f"{n}:{enc(v)}" for n, v in headers or []))


def not_applicable(reason):
    print(reason, file=sys.stderr)
    sys.exit(77)


def input_closed():
    """Set once the runner has closed our input: finish."""
    event = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), event.set()), daemon=True).start()
    return event
