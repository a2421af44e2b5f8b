"""As much of a table as a parameter space asks for."""

NA = None


def isna(value):
    return value is None


class Series(list):
    def astype(self, kind):
        return [kind(value) for value in self]


class Index(list):
    pass


class Row:
    def __init__(self, names, values):
        self._pairs = dict(zip(names, values))

    def _asdict(self):
        return self._pairs


class DataFrame:
    def __init__(self, rows, columns):
        self.rows, self.columns = rows, list(columns)
        self.dtypes = {name: type(value) for name, value in zip(columns, rows[0])}

    def __getitem__(self, columns):
        return self if list(columns) == self.columns else NA

    def itertuples(self, index):
        return (Row(self.columns, row) for row in self.rows)
