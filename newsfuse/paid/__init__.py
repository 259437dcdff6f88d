"""What keeps the promise that no vector is paid for twice.

`space` says which vectors are the same, `ledger` keeps them, `payer` lets one process at a time pay,
`packing`, `pace`, `budget` and `progress` are parts of `purchase`, which buys what is missing at once;
`jobs` hands it in to be bought within a day. `supply` is the door: it makes sure of every vector.
"""
