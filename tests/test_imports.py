"""placeholder"""
def test_x(): pass
