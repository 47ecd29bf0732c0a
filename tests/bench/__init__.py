"""`make bench`: how fast the same data is read hot and direct, hot through tierproxy, and cold through tierproxy.

Figures only compare within one run on one machine; every run therefore measures the broker alone as well.
"""
