"""The server: what it answers and refuses, what it keeps when it ends, and the page.

REQUESTS=20000 RESTARTS=10 pytest -n0 -s tests/experiments/test_serve.py -k the_program
FUZZED=10000 pytest -n0 -s tests/experiments/test_serve.py -k fuzzed
"""

import asyncio
import collections
import csv
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from dwa_jax.finetune.predictor import Prediction, Predictor
from dwa_jax.finetune.serving.answers import prediction_as_json
from experiments import predict, serve
from experiments.server import app, openapi, sockets
from experiments.server.limits import Limits
from experiments.terminal import how_sure
from tests.costless import Costless, score_of
from tests.experiments import browser, load
from tests.experiments.served import LIMITS, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REQUESTS, RESTARTS = int(os.environ.get("REQUESTS", 100)), int(os.environ.get("RESTARTS", 0))
FUZZED = int(os.environ.get("FUZZED", 300))
JSON, NDJSON = "application/json", "application/x-ndjson"


@pytest.fixture(scope="module")
def model():
    return Costless()


@pytest.fixture(scope="module")
def there(model):
    with serving(model) as there:
        yield there


def call(there, method, path, body=None, kind=JSON, **headers):
    """Returns (status, headers, answer) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", there.port, timeout=20)
    if isinstance(body, dict | list):
        body = json.dumps(body)
    given = headers | ({} if kind is None or body is None else {"content-type": kind})
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def test_texts_are_answered_in_their_order(there):
    texts = ["a b c", "d", "e " * 20]
    status, _, answer = call(there, "POST", "/predict", {"texts": texts})
    found = json.loads(answer)["predictions"]
    assert status == 200 and [one["truncated"] for one in found] == [False, False, True]
    assert [one["score"] for one in found] == pytest.approx(list(map(score_of, texts)), abs=1e-7)
    assert {one["name"] for one in found} <= {"down", "still", "up"}


def test_lines_are_answered_by_lines_and_a_bad_one_keeps_its_place(there):
    lines = [json.dumps({"text": f"text {i}"}) for i in range(150)]
    lines[3], lines[5], lines[70] = '{"text": ""}', "{", '{"text": "?"}'
    status, headers, answer = call(there, "POST", "/predict", "\n".join(lines), NDJSON)
    found = list(map(json.loads, answer.splitlines()))
    assert status == 200 and headers["content-type"] == NDJSON and len(found) == 150
    assert [i for i, one in enumerate(found) if "error" in one] == [3, 5, 70]
    assert found[3]["line"] == 3 and found[70]["error"]["field"] == "text"
    assert found[149]["score"] == pytest.approx(score_of("text 149"), abs=1e-7)
    # An empty line gives none, and the body's next ones keep their numbers.
    _, _, answer = call(there, "POST", "/predict", '{"text": "a"}\n\n \n{\n{"text": "b"}', NDJSON)
    found = list(map(json.loads, answer.splitlines()))
    assert len(found) == 3 and found[1]["line"] == 3 and "score" in found[2]


@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (33_000, 431), (60_000, 431)])
def test_a_head_is_bounded_also_where_it_comes_in_one_piece(there, size, status):
    given = f"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: {'x' * size}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", there.port)) as connection:
        connection.sendall(given)
        assert int(connection.recv(1000).split()[1]) == status
    many = "".join(f"X-{i}: {'y' * 20}\r\n" for i in range(size // 28))
    with socket.create_connection(("127.0.0.1", there.port)) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: a\r\n{many}\r\n".encode())
        assert int(connection.recv(1000).split()[1]) == status
    assert call(there, "GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ("{", 400, None, "no JSON"),
        ("[" * 9000, 400, None, "nested too deeply"),
        (b"\xff", 400, None, "no JSON"),
        ('{"texts": [' + "9" * 5000 + "]}", 400, None, "integer string conversion: value has"),
        ([], 422, None, 'an object with the key "texts"'),
        ({"text": "a"}, 422, "text", "'text' is no key of it"),
        ({"texts": "a"}, 422, "texts", "a list of strings"),
        ('{"texts": ["a"], "texts": ["b"]}', 422, "texts", "'texts' is there twice"),
        ({"texts": []}, 422, "texts", "is empty"),
        ({"texts": ["a", None]}, 422, "texts[1]", "is None, not a string"),
        ({"texts": ["a", " \n"]}, 422, "texts[1]", "the text is empty"),
        ('{"texts": ["\\ud800"]}', 422, "texts[0]", "half a surrogate pair"),
        ({"texts": ["a", "b", "?"]}, 422, "texts[2]", "no token"),
        ({"texts": ["a"] * 9}, 413, "texts", "9 texts, and 8 may come at once"),
        ({"texts": ["a" * 501]}, 413, "texts[0]", "501 characters, more than 500"),
        (" " * 20_001, 413, None, "more than 20,000 bytes"),
        (iter([b" " * 9_000] * 3), 413, None, "more than 20,000 bytes"),
    ],
)
def test_a_mistake_is_answered_with_its_field(there, body, status, field, words):
    found, _, answer = call(there, "POST", "/predict", body)
    error = json.loads(answer)["error"]
    assert (found, error["status"], error.get("field")) == (status, status, field)
    assert words in error["reason"]


def test_other_paths_methods_and_types_are_refused_as_json(there):
    for expected, method, path, body, kind in [
        (404, "GET", "/nothing", None, None),
        (404, "POST", "/predict/", "{}", JSON),
        (405, "GET", "/predict", None, None),
        (415, "POST", "/predict", "{}", "text/plain"),
        (415, "POST", "/explain", "{}", NDJSON),
    ]:
        status, _, answer = call(there, method, path, body, kind)
        assert status == json.loads(answer)["error"]["status"] == expected


def test_a_fault_is_one_callers_and_tells_no_text(model):
    with serving(model) as there:
        status, headers, answer = call(there, "POST", "/predict", {"texts": ["fail"]})
        assert status == 500 and b"secret" not in answer
        assert call(there, "POST", "/predict", {"texts": ["well"]})[0] == 200
    lines = list(map(json.loads, there.log.getvalue().splitlines()))
    assert [line["event"] for line in lines] == ["fault", "request", "request"]
    assert lines[0]["id"] == headers["x-request-id"] and "secret" not in there.log.getvalue()
    assert any("predict_tokens" in place for place in lines[0]["places"])
    assert "well" not in there.log.getvalue()
    with serving(model, log_texts=True) as there:
        call(there, "POST", "/predict", {"texts": ["well"]})
    assert json.loads(there.log.getvalue())["texts"] == ["well"]


def test_what_is_described_is_what_is_answered(there, model):
    described = json.loads(call(there, "GET", "/openapi.json")[2])
    schemas = described["components"]

    def check(name, value):
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": schemas})

    check("Predictions", json.loads(call(there, "POST", "/predict", {"texts": ["a b"]})[2]))
    check("Explanation", json.loads(call(there, "POST", "/explain", {"text": "a b"})[2]))
    check("Error", json.loads(call(there, "POST", "/predict", [])[2]))
    assert set(described["paths"]) == {
        *("/", "/predict", "/explain", "/model", "/health", "/ready", "/metrics"),
        "/openapi.json",
    }
    assert set(openapi.FIELDS) >= set(Prediction._fields)
    about = json.loads(call(there, "GET", "/model")[2])
    assert about["names"] == ["down", "still", "up"] and about["limits"]["texts"] == 8


def test_a_predictions_fields_are_those_of_the_run():
    found = prediction_as_json(Prediction(None, 1, None, (0.1 + 2**-30, 0.9), float("nan")))
    assert found == {
        "category": 1,
        "probabilities": [0.1, 0.9],
        "in_range": None,
        "truncated": False,
    }


def test_words_are_explained_as_by_occlusion(there):
    words = json.loads(call(there, "POST", "/explain", {"text": "up and down"})[2])["words"]
    whole = abs(score_of("up and down"))
    for word, hidden in zip(
        words, ["[MASK] and down", "up [MASK] down", "up and [MASK]"], strict=True
    ):
        assert word["score"] == pytest.approx(whole - abs(score_of(hidden)), abs=1e-6)


def test_a_full_queue_says_when_to_come_again(model):
    with serving(model, LIMITS._replace(waiting=8)) as there:
        model.go_on.clear()
        held = threading.Thread(target=call, args=(there, "POST", "/predict", {"texts": ["a"] * 8}))
        held.start()
        while there.batcher.waiting < 8:
            time.sleep(0.01)
        status, headers, answer = call(there, "POST", "/predict", {"texts": ["b"]})
        assert status == 429 and int(headers["retry-after"]) >= 1
        assert "queue is full" in json.loads(answer)["error"]["reason"]
        model.go_on.set()
        held.join()
        assert call(there, "POST", "/predict", {"texts": ["b"]})[0] == 200


def test_an_answer_that_takes_too_long_is_given_up_and_costs_nothing_more(model):
    with serving(model, LIMITS._replace(seconds=0.3)) as there:
        model.go_on.clear()
        model.computed.clear()
        first = threading.Thread(target=call, args=(there, "POST", "/predict", {"texts": ["a"]}))
        first.start()
        time.sleep(0.1)
        assert call(there, "POST", "/predict", {"texts": ["never"]})[0] == 504
        model.go_on.set()
        first.join()
        assert call(there, "POST", "/predict", {"texts": ["b"]})[0] == 200
        assert model.computed == [["a"], ["b"]] and there.batcher.waiting == 0


def test_counters_are_as_prometheus_reads_them(there):
    from prometheus_client.parser import text_string_to_metric_families

    call(there, "POST", "/predict", {"texts": ["a b c"]})
    status, headers, answer = call(there, "GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.decode())
        for sample in family.samples
    }
    assert found["dwa_texts_total"] >= 1 and found["dwa_tokens_total"] >= 3
    assert found["dwa_texts_waiting"] == 0 and "dwa_request_seconds_count" in found


def send(port, data, wait=2.0, pause=0.0):
    """Sends bytes as they are, and returns what came until the server closed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(wait)
        try:
            for part in data if isinstance(data, list) else [data]:
                connection.sendall(part)
                time.sleep(pause)
            connection.shutdown(socket.SHUT_WR)
            came = b""
            while part := connection.recv(65536):
                came += part
        except OSError:
            pass
        return locals().get("came", b"")


def test_slow_and_large_heads_are_cut_off(there):
    began = time.monotonic()
    slow = [b"POST /predict HTTP/1.1\r\n", *[b"x: y\r\n"] * 40]
    with socket.create_connection(("127.0.0.1", there.port)) as held:
        for part in slow:
            try:
                held.sendall(part)
            except OSError:
                break
            time.sleep(0.05)
        held.settimeout(5)
        assert b" 408 " in held.recv(1000)
    assert 0.9 < time.monotonic() - began < 4
    with socket.create_connection(("127.0.0.1", there.port)) as idle:
        idle.settimeout(5)
        assert idle.recv(10) == b""
    assert b" 431 " in send(there.port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9000)
    assert send(there.port, b"GET /health HTTP/1.1\r\n\r\n" * 200).count(b" 200 ") < 20
    assert send(there.port, b"GET /health HTTP/1.1\r\n\r\n" * 5).count(b" 200 ") == 5
    assert call(there, "GET", "/health")[0] == 200


def mutate(rng, whole):
    """A request changed at random."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        how = rng.randrange(5)
        if how == 0:
            data[at] = rng.randrange(256)
        elif how == 1:
            del data[at : at + rng.randint(1, 40)]
        elif how == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        elif how == 3:
            data[at:at] = data[at : at + 30] * rng.randint(1, 50)
        else:
            nasty = (
                b"\r\n",
                b"\0",
                b"99999999999999999999",
                b'"\\ud800"',
                b"[[[[",
                b"1e999",
                b"-1",
            )
            data[at:at] = rng.choice(nasty)
        if not data:
            break
    return bytes(data)


def mutate_body(rng, whole):
    """A request whose body alone is changed, and whose length is right."""
    head, _, body = whole.partition(b"\r\n\r\n")
    if b"content-length" not in head:
        return mutate(rng, whole)
    # JSON of another kind, or what is none.
    if rng.random() < 0.5:
        values = (
            None,
            1e400,
            2**70,
            "",
            "\0",
            "\ud800",
            [],
            ["a", 3],
            {"a": []},
            ["?"],
            ["yen"] * 9,
        )
        keys = ("texts", "text", "", "\ud800")
        body = json.dumps({rng.choice(keys): rng.choice(values)}).encode()
    else:
        body = mutate(rng, body)
    return re.sub(rb"length: \d+", b"length: %d" % len(body), head) + b"\r\n\r\n" + body


def wholes():
    """Requests to begin from."""
    body = b'{"texts": ["EUR/USD jumps", "yen"]}'
    length = b"content-length: %d\r\n\r\n"
    post = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\n"
    for path, kind, content in [
        (b"/predict", b"application/json", body),
        (b"/predict", b"application/x-ndjson", b'{"text": "yen"}\n{"text": "a"}\n'),
        (b"/explain", b"application/json", b'{"text": "the dollar falls"}'),
    ]:
        yield post % (path, kind) + length % len(content) + content
    chunks = b"transfer-encoding: chunked\r\n\r\n10\r\n" + body[:16] + b"\r\n13\r\n" + body[16:]
    yield post % (b"/predict", b"application/json") + chunks + b"\r\n0\r\n\r\n"
    yield b"GET /model?a=%41 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_fuzzed_requests_are_refused_and_nothing_grows(there):
    rng, kinds, seen = random.Random(0), list(wholes()), collections.Counter()
    before = 0
    for number in range(FUZZED):
        if number == FUZZED // 4:
            before = resident()
        changed = rng.choice([mutate, mutate_body])(rng, rng.choice(kinds))
        came = send(there.port, changed, wait=0.5 + there.limits.seconds)
        for status in re.findall(rb"HTTP/1\.1 (\d+) ", came) or [b"none"]:
            seen[status.decode()] += 1
    grown = resident() - before
    print(f"{FUZZED} requests, {dict(seen)}, {grown / 2**20:.1f} MiB more")
    assert not [status for status in seen if status.startswith("5")]
    assert seen["200"] and seen["400"] and seen["422"] and grown < 60 * 2**20
    assert call(there, "POST", "/predict", {"texts": ["a"]})[0] == 200
    assert there.batcher.waiting == 0


def start(folder, port, *options):
    """Starts the program, and waits until it answers."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.serve", f"--workdir={folder}", f"--port={port}"),
            *("--batch_size=2", *options),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("serving "), process.communicate()
    # Its log must be read, or it would wait for us.
    process.lines = []
    process.reading = threading.Thread(target=lambda: process.lines.extend(process.stderr))
    process.reading.start()
    return process, int(line.strip().rpartition(":")[2])


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.reading.join()
    process.stdout.close()
    process.stderr.close()
    return [json.loads(line) for line in process.lines]


def test_the_program_restarted_under_load_loses_nothing_and_says_what_others_say(
    finished_run, tmp_path
):
    texts = [f"the pound {'falls ' * (i % 7)}{i}" for i in range(REQUESTS)]
    model = Predictor.load(finished_run)
    expected = model.predict(texts).score
    done = []
    process, port = start(finished_run, 0)
    lines = []

    async def restart():
        nonlocal process
        for turn in range(RESTARTS):
            due = REQUESTS * (turn + 1) // (RESTARTS + 2)
            while len(done) < due:
                await asyncio.sleep(0.01)
            new, _ = await asyncio.to_thread(start, finished_run, port, "--beside")
            old, process = process, new
            lines.extend(await asyncio.to_thread(stop, old))

    async def everything():
        await asyncio.gather(restart(), load.clients(port, map(load.body_of, texts), note))

    def note(number, status, answer, seconds):
        done.append((number, status, answer))

    asyncio.run(everything())
    lines += stop(process)
    print(f"{REQUESTS} requests, {RESTARTS} restarts")
    check_answers(done, lines, expected)
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(texts[:50]) + "\n")
    files = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
    predict.predict(predict.parse([f"--workdir={finished_run}", "--text_column=text", *files]))
    header, *rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()]
    column = header.index("predicted_score")
    assert [float(row[column]) for row in rows] == pytest.approx(list(expected[:50]), abs=1e-6)


def test_program_python_and_server_say_the_same_of_every_text(finished_run, tmp_path):
    texts = ["EUR/USD jumps after ECB", "zwölf Boxkämpfer jagen", "the pound falls " * 4, "yen"]
    model, served = (Predictor.load(finished_run, 2) for _ in "ab")
    model.coverage, model.intervals = 0.5, "by_length"
    width = float(np.diff(model.predict(texts).interval).mean())
    how = ["--coverage=0.5", "--intervals=by_length", f"--abstain={width}"]
    how_sure.apply_options(serve.parse(["--workdir=x", *how]), served)
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(texts) + "\n")
    files = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
    options = ["--text_column=text", *how, *files]
    predict.predict(predict.parse([f"--workdir={finished_run}", *options]))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with serving(served, Limits(), abstain=width) as there:
        found = json.loads(call(there, "POST", "/predict", {"texts": texts})[2])["predictions"]
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        by_line = call(there, "POST", "/predict", lines, NDJSON)[2].splitlines()
        about = json.loads(call(there, "GET", "/model")[2])
        described = json.loads(call(there, "GET", "/openapi.json")[2])
    assert list(map(json.loads, by_line)) == found
    assert about["abstains"] and about["abstains_above"] == width
    fields = described["components"]["schemas"]["Prediction"]["properties"]
    assert f"wider than {width:g}" in fields["abstained"]["description"]
    for one, python, row in zip(found, model(texts, abstain=width), rows, strict=True):
        expected = prediction_as_json(python)
        assert set(one) == set(expected)
        assert all(one[name] == pytest.approx(expected[name], abs=1e-6) for name in expected)
        assert one["score"] == pytest.approx(float(row["predicted_score"]), abs=1e-6)
        probabilities = [float(row[f"probability_{k}"]) for k in range(len(one["probabilities"]))]
        assert one["probabilities"] == pytest.approx(probabilities, abs=1e-6)
        ends = [float(row["interval_low"]), float(row["interval_high"])]
        assert one["interval"] == pytest.approx(ends, abs=1e-6)
        marks = row["unlike"] == "1", row["abstained"] == "1"
        assert (one["unlike"], one["abstained"]) == marks
    assert len({one["abstained"] for one in found}) == 2


def test_a_run_that_cannot_abstain_is_refused_before_it_serves(finished_run, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(finished_run, folder)
    (folder / "reference.safetensors").unlink()
    with pytest.raises(ValueError, match="train it again"):
        serve.serve(serve.parse([f"--workdir={folder}", "--port=0", "--abstain"]))


def check_answers(done, lines, expected):
    """Every request was answered once, by one server, and rightly."""
    assert sorted(number for number, _, _ in done) == list(range(len(expected)))
    assert [(number, status, said) for number, status, said in done if status != 200] == []
    for number, _, answer in done:
        (found,) = json.loads(answer)["predictions"]
        assert found["score"] == pytest.approx(expected[number], abs=1e-6)
    answered = [line["status"] for line in lines if line["event"] == "request"]
    assert answered == [200] * len(expected)


def test_a_server_beside_another_takes_over_and_nothing_is_lost(model):
    texts, done, lines = [f"text {i}" for i in range(600)], [], []

    def note(number, status, answer, seconds):
        done.append((number, status, answer))

    def replace(port):
        for due in (100, 250, 400, 500):
            with serving(Costless(), port=port, beside=True) as new:
                while len(done) < due:
                    time.sleep(0.001)
            lines.extend(map(json.loads, new.log.getvalue().splitlines()))

    with serving(model) as first:
        others = threading.Thread(target=replace, args=(first.port,))
        others.start()
        asyncio.run(load.clients(first.port, map(load.body_of, texts), note))
        others.join()
    lines += map(json.loads, first.log.getvalue().splitlines())
    check_answers(done, lines, list(map(score_of, texts)))


def test_the_end_answers_what_was_taken(model):
    with serving(model) as there:
        model.go_on.clear()
        answers = []
        asked = [
            threading.Thread(
                target=lambda: answers.append(call(there, "POST", "/predict", {"texts": ["a"]}))
            )
            for _ in range(5)
        ]
        for thread in asked:
            thread.start()
        while there.batcher.waiting < 5:
            time.sleep(0.01)
        there.server.end()
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            call(there, "GET", "/ready")
        model.go_on.set()
        for thread in asked:
            thread.join()
    assert [status for status, _, _ in answers] == [200] * 5
    assert all(headers["connection"] == "close" for _, headers, _ in answers)


def test_a_port_is_shared_only_where_that_is_said(there):
    with pytest.raises(ValueError, match="is taken: --beside serves there too"):
        sockets.bind("127.0.0.1", there.port, beside=False)
    sockets.bind("127.0.0.1", there.port, beside=True).close()
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.listen()
        with pytest.raises(ValueError, match="it is not shared"):
            sockets.bind("127.0.0.1", alone.getsockname()[1], beside=True)
    with pytest.raises(ValueError, match="is no address of this machine"):
        sockets.bind("no.such.name.invalid", 0, beside=False)


def test_a_mistake_of_the_command_line(capsys):
    for options, words in [
        (["--port=70000"], "'70000' is no whole number from 0 to 65535"),
        (["--max_waiting=3"], "--max_waiting is at least --max_texts"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            serve.parse(["--workdir=x", *options])
        assert words in capsys.readouterr().err


def test_the_page_holds_all_that_it_runs_and_nothing_acts(there):
    status, headers, answer = call(there, "GET", "/")
    source, policy = answer.decode(), headers["content-security-policy"]
    assert status == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert policy.count("sha256-") == source.count("<script>") + source.count("<style>") == 2
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http:"):
        assert way not in source
    assert " style=" not in source and " on" + "click=" not in source


def test_a_person_with_a_keyboard_uses_the_page(tmp_path, there, monkeypatch):
    if browser.browser() is None:
        pytest.skip(f"there is no browser: none of {', '.join(browser.BROWSERS)} is on the PATH")
    script = (
        "<script>document.title = 'acted'</script><img src=x onerror=\"document.title='acted'\">"
    )

    def with_interval(prediction):
        return prediction_as_json(prediction) | {"interval": [-0.9, 0.5], "abstained": True}

    monkeypatch.setattr(app, "prediction_as_json", with_interval)

    async def person():
        async with browser.Tab(tmp_path) as tab:
            for width, dark in ((360, False), (1280, True)):
                await tab.show(f"http://127.0.0.1:{there.port}/", width, dark=dark)
                await reach(tab, "document.activeElement.id === 'texts'")
                await tab.type(f"the dollar falls\n{script}")
                await reach(tab, "document.activeElement.id === 'predict'")
                await tab.press("Enter")
                await tab.until("document.querySelectorAll('li.card').length === 2")
                await reach(tab, "document.activeElement.textContent === 'Which words?'")
                await tab.press("Enter")
                await tab.until("document.querySelectorAll('.word').length === 3")
                words = await tab.ask("document.querySelector('main').innerText")
                shown = f"{abs(score_of('the dollar falls')):.3f}"
                assert shown in words and script in words and "up" in words
                assert "interval −0.9 to 0.5" in words and "Too unsure to rely on" in words
                assert await tab.ask("document.title") == "Try the model"
                assert await tab.ask("document.images.length") == 0
                assert await tab.ask("document.documentElement.scrollWidth") == width
                paper = await tab.ask("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == dark
            assert tab.complaints == []

    asyncio.run(person())


async def reach(tab, there, most=12):
    """Presses Tab until what is wanted has the focus."""
    for _ in range(most):
        await tab.press("Tab")
        if await tab.ask(there):
            return
    raise AssertionError(f"no key reaches {there}")
