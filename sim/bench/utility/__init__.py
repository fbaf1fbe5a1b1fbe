"""What learning together is worth under a privacy budget: real bundles, trained by the trainer that
ships, through the node that ships, on virtual time. `script/bench privacy-utility`.
"""
