NAMES = config["names"]


def marked(word):
    return word + config["mark"]
