"""Rules of the ladder and of the decision that only a real API server can show, one test each."""


async def test_a_roll_of_three_machines_completes(stage):
    async with stage(3, lock=2) as scene:
        await scene.policy()
        await scene.complete()
        assert [scene.version(name) for name in scene.fleet.names] == ["2.0.0"] * 3
        assert max(len(moment.unavailable) for moment in scene.witness.replay()) == 1
