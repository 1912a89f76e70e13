"""Made data and their measures: the digits of scikit-learn, and clips of shapes whose future is known."""
