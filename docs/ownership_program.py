"""A ref that passes through three processes: the example of protocols/ownership.md."""

import miniray as ray


@ray.remote
class Keeper:
    def keep(self, refs):
        self.ref = refs[0]

    def drop(self):
        self.ref = None


@ray.remote
def pass_on(refs, keeper):
    ray.get(keeper.keep.remote(refs))


ray.init(num_cpus=2)
keeper = Keeper.remote()
x = ray.put("value")
ray.get(pass_on.remote([x], keeper))
del x
ray.get(keeper.drop.remote())
