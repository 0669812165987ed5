"""Requests and responses by the protocol's specification: a small encoder and decoder that also write what no client would.

The specification is protocol-spec/apis, the same files from which the broker's own code is generated. Every version of every API is written and read
by the lines of its file; nothing here knows an API.
"""
import re, struct, uuid
from pathlib import Path

SPECS = Path(__file__).resolve().parents[2] / "protocol-spec" / "apis"
API_VERSIONS = 18
FIELD = re.compile(r"^(?P<name>\w+): (?P<type>\S+)(?: (?P<versions>\d+(?:-\d+|\+)?))?(?P<nullable> nullable(?: (?P<nulls>\d+(?:-\d+|\+)?))?)?(?: tag (?P<tag>\d+))?(?: = (?P<default>.*))?$")
NUMBERS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


def versions(text):
    """The range of `3`, `3-5` or `3+`; none is all."""
    if not text:
        return range(0, 1000)
    first, _, last = text.rstrip("+").partition("-")
    return range(int(first), 1000 if text.endswith("+") else int(last or first) + 1)


class Field:
    """A line of the specification with the lines below it."""

    def __init__(self, line):
        found = FIELD.match(line)
        if not found:
            raise ValueError(f"not a field: {line}")
        self.name, self.type = found["name"], found["type"]
        self.versions = versions(found["versions"])
        self.nullable = versions(found["nulls"]) if found["nullable"] else range(0)
        self.tag = None if found["tag"] is None else int(found["tag"])
        self.default, self.fields = found["default"], []

    @property
    def element(self):
        return self.type[1:-1] if self.type.startswith("[") else None

    def empty(self, version):
        """The value of a field that a request does not name."""
        if self.default == "null":
            return None
        if self.element:
            return []
        if self.type in NUMBERS:
            return int(self.default or 0)
        return {"bool": self.default == "true", "string": self.default or "", "bytes": b"", "records": b"", "uuid": bytes(16)}.get(self.type, {})


class Message:
    def __init__(self, header):
        found = re.match(r"^(\w+) versions (\d+)(?:-(\d+))?(?: flexible (\d+)\+)?", header)
        self.versions = range(int(found[2]), int(found[3] or found[2]) + 1)
        self.flexible_from = int(found[4]) if found[4] else 1000
        self.fields = []


class Api:
    """An API's name, key, request and response."""

    def __init__(self, path):
        stack = []
        for line in path.read_text().splitlines():
            line = line.split("#")[0].rstrip()
            if not line:
                continue
            indent, text = (len(line) - len(line.lstrip())) // 2, line.strip()
            if text.startswith("api "):
                self.key, self.name = int(text.split()[1]), text.split()[2]
            elif indent == 0:
                message = Message(text)
                setattr(self, text.split()[0], message)
                stack = [message]
            else:
                field = Field(text)
                del stack[indent:]
                stack[-1].fields.append(field)
                stack.append(field)


def apis():
    found = [Api(path) for path in sorted(SPECS.glob("*.spec"))]
    return {api.name: api for api in found if hasattr(api, "name")}


def varint(number):
    out = b""
    while True:
        out += bytes([number & 127 | (128 if number > 127 else 0)])
        number >>= 7
        if not number:
            return out


class Raw(bytes):
    """Bytes that stand for a field as they are, whatever its type."""


class Writer:
    def __init__(self, version, flexible):
        self.version, self.flexible = version, flexible

    def fields(self, fields, value):
        out, tags = b"", {}
        for field in fields:
            if self.version not in field.versions:
                continue
            item = value.get(field.name, field.empty(self.version))
            if field.tag is not None and self.flexible:
                if item != field.empty(self.version):
                    tags[field.tag] = self.one(field, field.type, item)
                continue
            out += self.one(field, field.type, item)
        if self.flexible:
            tags.update(value.get("_tags", {}))
            out += varint(len(tags)) + b"".join(varint(tag) + varint(len(tags[tag])) + tags[tag] for tag in sorted(tags))
        return out

    def length(self, count, width=">i"):
        """A length; none is null."""
        if self.flexible:
            return varint(0 if count is None else count + 1)
        return struct.pack(width, -1 if count is None else count)

    def one(self, field, kind, value):
        if isinstance(value, Raw):
            return bytes(value)
        if kind.startswith("["):
            if value is None:
                return self.length(None)
            return self.length(len(value)) + b"".join(self.one(field, kind[1:-1], item) for item in value)
        if kind in NUMBERS:
            return struct.pack(NUMBERS[kind], value)
        if kind == "bool":
            return bytes([int(value)])
        if kind == "uuid":
            return value
        if kind in ("bytes", "records"):
            return self.length(None) if value is None else self.length(len(value)) + value
        if kind == "string":
            data = None if value is None else value.encode() if isinstance(value, str) else value
            return self.length(None, ">h") if data is None else self.length(len(data), ">h") + data
        # Elements of a nullable array are not nullable themselves.
        if field.nullable and not field.element:
            return b"\xff" if value is None else b"\x01" + self.fields(field.fields, value)
        return self.fields(field.fields, value)


class Reader:
    def __init__(self, data, version, flexible):
        self.data, self.at, self.version, self.flexible = data, 0, version, flexible

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("the answer is cut off")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def length(self, form=">i"):
        count = self.varint() - 1 if self.flexible else self.number(form)
        return None if count < 0 else count

    def fields(self, fields):
        value, tagged = {}, {}
        for field in fields:
            if self.version not in field.versions:
                continue
            if field.tag is not None and self.flexible:
                tagged[field.tag] = field
                value[field.name] = field.empty(self.version)
            else:
                value[field.name] = self.one(field, field.type)
        if self.flexible:
            for _ in range(self.varint()):
                tag, size = self.varint(), self.varint()
                inside = Reader(self.take(size), self.version, True)
                if tag in tagged:
                    value[tagged[tag].name] = inside.one(tagged[tag], tagged[tag].type)
                else:
                    value[f"_tag {tag}"] = inside.data.hex()
        return value

    def one(self, field, kind):
        if kind.startswith("["):
            count = self.length()
            return None if count is None else [self.one(field, kind[1:-1]) for _ in range(count)]
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == "bool":
            return self.take(1) != b"\0"
        if kind == "uuid":
            return str(uuid.UUID(bytes=self.take(16)))
        if kind in ("bytes", "records"):
            count = self.length()
            return None if count is None else self.take(count)
        if kind == "string":
            count = self.length(">h")
            return None if count is None else self.take(count).decode()
        if field.nullable and not field.element and self.take(1) == b"\xff":
            return None
        return self.fields(field.fields)


def request_frame(api, version, value, client="edges", correlation=7):
    flexible = version >= api.request.flexible_from
    header = struct.pack(">hhih", api.key, version, correlation, len(client)) + client.encode() + (b"\0" if flexible else b"")
    body = header + Writer(version, flexible).fields(api.request.fields, value)
    return struct.pack(">i", len(body)) + body


def response(api, version, frame):
    """The answer in a frame; bytes left over are an error."""
    flexible = version >= api.response.flexible_from
    reader = Reader(frame, version, flexible)
    reader.number(">i")
    if flexible and api.key != API_VERSIONS:
        reader.take(1)
    value = reader.fields(api.response.fields)
    if reader.at != len(frame):
        value["_left over"] = len(frame) - reader.at
    return value
