"""What runs inside vLLM's processes: a loader, a worker extension, and a control path.

vLLM finds it because the folder `entry`, which holds the entry points, is on PYTHONPATH. This is
the only package that imports vLLM, and nothing outside vLLM's processes imports it.
"""
