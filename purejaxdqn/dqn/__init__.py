"""The DQN family: heads, bootstraps, networks, replay and the algorithm made of them."""
