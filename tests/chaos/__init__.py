"""Chaos on real programs: Kafka, an S3 server and two tierproxies, killed, paused, slowed and cut by a seed's dice.

A producer writes and consumers read through both tierproxies all the while, and every record is compared as it comes.
What the dice choose is the seed's; when it hits what is the machine's, so a seed tells the same story twice, not the
same moment. For that there is `tests.simulation`.
"""
