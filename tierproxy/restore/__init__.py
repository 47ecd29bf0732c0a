"""Writing what is archived into a Kafka cluster again, as a producer does.

The story of a restore: target.py (the topic to write to) → outgoing.py (batches as they will be sent) → lane.py (one
partition's batches, sent in order) → state.py (how far that is, on the disk).

A restored record has the partition, order, key, value, headers and time that it had. Offsets are the target's own: a
producer can't choose them, and what readers never saw (aborted records, markers, what compaction took) isn't sent.
"""
