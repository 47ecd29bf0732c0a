"""Back of the house: copy what brokers have into the archive, then trim the brokers.

`fsm` decides for one partition and is pure. `worker` carries its decisions out, `spool` holds the segment that is
being written, `copier` fetches from one broker for all partitions it leads, `archiver` says who works on what.
"""
