class ServedFolder:
    def __init__(self, storage):
        raise NotImplementedError


def check_servable(storage):
    pass
