"""The same run under several seeds, as tasks on a Dask cluster, and what their spread says."""
