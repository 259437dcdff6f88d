"""`newsfuse ablate`: subsets of the encoders, crossed with fusions and seeds, through DVC's own queue.

`variants` says which runs that is, each under a name made of all that decides its result (`overrides` and `sources`);
`finished` which are done, `queue` and `watch` see to the others, `table` shows what came of them. `ablate` is the door.
"""
