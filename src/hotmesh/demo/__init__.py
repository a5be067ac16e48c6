"""The order flow that `hotmesh demo` runs: `orders.yaml`, its callbacks, and a file of 2,000 varied orders."""
