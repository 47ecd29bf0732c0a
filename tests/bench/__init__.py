"""`make bench`: how fast data is read through tierproxy, and what that costs, beside the broker alone.

Map: `corpus` makes records, `filling` brings them into Kafka, `s3` is the store with its front, `backend` is all that
filled and archived, `scene` puts tierproxy before it. `programs` and `readers` run clients, `meters` tell their cost.
Each module in `questions` is one scenario; `turns` reads by several routes in turn; `results`, `report` and `targets`
keep, show and judge.

Figures only compare within one run on one machine; every run therefore measures the broker alone as well.
"""
