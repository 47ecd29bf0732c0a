"""Coverage-guided fuzzing of everything that reads bytes from strangers: `make fuzz SECONDS=60 TARGET=fetch_stream`.

`targets` says what must hold for any bytes; `corpus` is what earlier runs found worth keeping, by target; `__main__`
runs libFuzzer (atheris) over it. `make test` replays the corpus and fuzzes for some seconds.
"""
