"""`make demo`: tierproxy's whole job on a real Kafka and real data, with the digests to prove it.

`source` gives the records, `digest` says whether two readings are the same, `reader` is one stock consumer in a
process of its own, `story` runs everything and `report` is what a person sees of it.
"""
