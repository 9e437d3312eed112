"""How sure a model is: intervals of scores, calibrated probabilities, texts unlike the training's.

All of it rests on what a run keeps of its training and validation rows, see `reference`.
"""
