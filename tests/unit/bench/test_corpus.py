"""The bench's records: valid, different, the same for a seed, and as compressible as it says."""

import json
from statistics import mean

import zstandard

from tests.bench.corpus import Corpus, values
from tests.bench.options import MAIN, Options

CHUNK = 1 << 20


def test_records_are_json_of_about_a_kibibyte_and_all_different() -> None:
    records = list(values(1, 2))
    assert 900 < mean(map(len, records)) < 1150
    assert len({json.loads(record)["event_id"] for record in records}) == len(records)


def test_a_seed_gives_the_same_records_again() -> None:
    assert list(values("a", 0.1)) == list(values("a", 0.1))
    assert list(values("a", 0.1)) != list(values("b", 0.1))


def test_they_compress_about_four_times() -> None:
    data = b"".join(values(1, 4))
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    stored = sum(len(zstandard.compress(chunk, 3)) for chunk in chunks)
    assert 0.2 < stored / len(data) < 0.27


def test_the_largest_corpus_is_whole_segments_and_a_little_more() -> None:
    corpora = {corpus.name: corpus for corpus in Options(800).corpora()}
    segments = corpora[MAIN].megabytes * 1e6 / 3 / (128 << 20)
    assert 2 <= segments < 2.1
    assert corpora["json-50"].partitions == 50


def test_a_quick_run_has_one_corpus() -> None:
    assert [corpus.name for corpus in Options(quick=True).corpora()] == [MAIN]


def test_the_two_topics_of_a_corpus_have_names_of_their_own() -> None:
    assert Corpus("x", 1, 1).topics == ("hot-x", "cold-x")
