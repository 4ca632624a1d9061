"""Benchmarks: the merge engine beside its peer and the I/O floor, on the same inputs, in one run.

    make bench                               everything; sets up what it needs first
    .venv/bin/python -m bench                the same once that is done
    .venv/bin/python -m bench --quick        tiny models: does the harness itself work?
    .venv/bin/python -m bench --only house   one part: house, slice, scale, …
    .venv/bin/python -m bench --help         state of the cache, rounds, folder, JSON, …

Parts
    house   three Llama-shaped bfloat16 models of 1.1 billion parameters, merged by the house
            recipe: two components, each a SLERP of two models with a gradient, then a SLERP of
            the two
    slice   the same with models that have one layer of a 70B Llama
    scale   engine and floor on three sizes (0.6, 1.1 and 2.1 billion parameters): is the time a
            straight line in the bytes, how much steeper than the floor's, is the memory flat?
    browser from an anchor's move to the redrawn charts, in a real Chromium, for a recipe of 80
            layers × 9 tensors × 3 sources; see bench/browser.py for what exactly is timed
    tuning  the computation alone behind such a move, and loading Gram matrices that were kept
    serve   vLLM with a demo model: many requests together against one by one, and another model
            by a switch in place against a restart; see bench/serving.py, and bench/switch.py, a
            program of its own, for the same with a larger model

Contestants, each a whole process from its start to the end of the `sync` after it
    engine    python -m studio merge RECIPE --out FOLDER
    mergekit  mergekit-multi RECIPE -I FOLDER --out-path FOLDER, from .venv-mergekit or from the
              environment that STUDIO_MERGEKIT_VENV names
    floor     bench/floor.py: every input byte read once, one output's size written, nothing
              computed. Several ways to read and write are tried first; the fastest takes part

The models are made by the bench: normal noise of scale 0.02 in the shape of a Llama, three
"fine-tunes" of one base that differ from each other by about a tenth. Engine and floor alternate;
a figure is the median of its runs, peak RSS the largest. With a warm cache all inputs are read
once before each run, outside its time; with a cold cache the kernel is told to drop them.

Figures
    wall       seconds from starting the process until it has ended and `sync` has returned
    cpu        seconds of processor time, all threads, user and system
    peak RSS   the largest resident set of the process (of a child's, if that is larger); mapped
               pages of files count
    disk read, disk write     bytes at the block layer (read_bytes and write_bytes of
               /proc/PID/io): what came from the cache is not in the first; the second counts
               pages made dirty and direct writes
    calls read, calls write   bytes through read and write calls (rchar and wchar there): mapped
               files show in neither; the start of Python and its libraries is in the first
    GB/s       (all inputs + one output) / wall, the same bytes for each contestant; 1 GB is 1e9

The bars are printed as met or not met. Nothing is asserted: a timing belongs to a machine and its
load. Linux only.
"""
