"""Task graphs: bind describes, execute runs, each node once, with the input of this time."""

import pickle

import pytest

import miniray
from miniray.dag import DAGInputData, FunctionNode, InputNode, MultiOutputNode


@miniray.remote
def add(x, y=1):
    return x + y


@miniray.remote
def same(*values):
    return len(set(values)) == 1


@miniray.remote
def draw():
    import random

    return random.random()


@miniray.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def add(self, k):
        self.n += k
        return self.n


pytestmark = pytest.mark.usefixtures("session")


def test_a_graph_of_tasks_runs_as_often_as_it_is_executed():
    graph = add.bind(add.bind(1), y=add.bind(2, 3))
    assert [miniray.get(graph.execute()) for _ in range(2)] == [7, 7]


def test_a_node_runs_once_per_execution():
    node = draw.bind()
    graph = same.bind(node, node)
    assert miniray.get(graph.execute())
    first, second = (miniray.get(MultiOutputNode([node, node]).execute()) for _ in range(2))
    assert first[0] == first[1] != second[0]


def test_the_input_is_the_argument_or_all_of_them():
    with InputNode() as given:
        whole = add.bind(given, y=2)
        parts = add.bind(given[0], given.key)
    assert miniray.get(whole.execute(5)) == 7
    assert miniray.get(parts.execute(5, key=6)) == 11
    with InputNode() as given:
        items = add.bind(given["a"], given["b"])
    assert miniray.get(items.execute({"a": 1, "b": 2})) == 3
    data = DAGInputData(1, k=2)
    assert (data[0], data["k"]) == (1, 2)


def test_input_outside_of_its_context_is_an_error():
    with pytest.raises(AssertionError, match="InputNode is a singleton instance"):
        add.bind(InputNode(), 1).execute(4)
    with pytest.raises(ValueError, match="should not take any args"):
        InputNode(1)


def test_calls_of_an_actor_keep_the_order_of_their_bind_and_each_execution_has_a_new_actor():
    counter = Counter.bind(10)
    counter.add.bind(1)
    counter.add.bind(2)
    graph = counter.add.bind(0)
    assert [miniray.get(graph.execute()) for _ in range(2)] == [13, 13]
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        counter.nope
    with pytest.raises(AttributeError, match=r"Use \.bind\(\) instead"):
        counter.add.remote


def test_methods_of_a_living_actor_can_be_bound():
    counter = Counter.remote(1)
    graph = counter.add.bind(3)
    assert [miniray.get(graph.execute()) for _ in range(2)] == [4, 7]


def test_several_outputs_and_nodes_inside_of_containers():
    graph = MultiOutputNode([add.bind(1), add.bind(2)])
    assert miniray.get(graph.execute()) == [2, 3]
    with pytest.raises(ValueError, match="Invalid input type for `args`"):
        MultiOutputNode(1)

    @miniray.remote
    def keep(values):
        return values

    refs = miniray.get(keep.bind([add.bind(1), {"a": add.bind(2)}]).execute())
    assert [miniray.get(refs[0]), miniray.get(refs[1]["a"])] == [2, 3]


def test_options_go_with_the_node():
    node = add.options(name="named", num_cpus=2).bind(1)
    assert node.get_options() == {"name": "named", "num_cpus": 2}
    assert miniray.get(node.execute()) == 2
    counter = Counter.options(name="of a graph").bind()
    ref = counter.add.bind(1).execute()
    assert miniray.get(ref) == 1


def test_a_node_tells_what_it_is():
    node = add.bind(1, y=2)
    assert (node.get_args(), node.get_kwargs()) == ((1,), {"y": 2})
    assert str(node).startswith(f"(FunctionNode, {node.get_stable_uuid()})(\n    body=<function add")
    assert pickle.loads(miniray.cloudpickle.dumps(node)).get_stable_uuid() == node.get_stable_uuid()
    with pytest.raises(AttributeError, match=r"\.remote\(\) cannot be used on"):
        node.remote()
    with pytest.raises(NotImplementedError, match="no compiled graphs"):
        node.experimental_compile()


def test_a_graph_with_an_actor_and_an_input_travels_to_a_task():
    with InputNode() as given:
        counter = Counter.bind()
        first = counter.add.bind(given[0])
        graph = add.bind(first, y=counter.add.bind(given[1]))

    @miniray.remote
    def execute(nested):
        return miniray.get(nested["graph"].execute(1, 2))

    assert miniray.get(execute.remote({"graph": graph})) == miniray.get(graph.execute(1, 2))


def test_a_graph_is_walked_and_rewritten():
    inner = add.bind(1)
    graph = add.bind(inner, inner)
    seen = []
    graph.traverse_and_apply(seen.append)
    assert set(seen) == {graph, inner}
    assert graph._get_all_child_nodes() == [inner]

    def more(node):
        return FunctionNode(node._body, (5, 5), {}, {}) if node.get_args() == (1,) else node

    assert miniray.get(graph.apply_recursive(more).execute()) == 20
    assert miniray.get(graph.execute()) == 4
