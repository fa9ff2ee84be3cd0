"""How good a trained net is: whole-set confusion, IoU by class, predictions to look at."""
