"""Names of people and villages that could be, and are nobody's."""

from itertools import product

from api.demo.seed import SAMPLE, Seed

_FAMILY = [
    *("Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Vũ", "Đặng", "Bùi", "Đỗ", "Hà", "Lương", "Nông"),
    *("Giàng", "Vàng", "Thào", "Sùng", "Lù", "Ma", "Lý", "Tẩn", "Chảo", "Vù", "Cư", "Hảng"),
]
_MIDDLE = {
    "male": ["Văn", "Đức", "Minh", "Quốc", "Xuân", "Hữu", "Seo", "A", "Ngọc", "Thanh"],
    "female": ["Thị", "Thu", "Ngọc", "Thanh", "Kim", "Hồng", "Thùy", "Phương", "Mai", "Thị"],
}
_GIVEN = {
    "male": [
        *("Páo", "Sử", "Dờ", "Chinh", "Tuấn", "Hùng", "Dũng", "Nam", "Long", "Thắng", "Quân"),
        *("Sơn", "Hải", "Việt", "Bình", "Tiến", "Lâm", "Phúc", "Toàn", "Cường"),
    ],
    "female": [
        *("Mỷ", "Dí", "Chú", "Lan", "Hoa", "Hương", "Nga", "Thảo", "Yến", "Hạnh", "Tuyết"),
        *("Oanh", "Liên", "Vân", "Trang", "Nhung", "Duyên", "Hiền", "Loan", "Xuân"),
    ],
}

_UPLAND = (
    ("Na", "Nậm", "Lùng", "Cốc", "Tả", "Sín", "Phìn", "Mường", "Séo", "Lao", "Khe", "Tân", "Nà"),
    ("Đẩy", "Vai", "Chải", "Hồ", "Mạ", "Khánh", "Lúc", "Phàng", "Thàng", "Pha", "Cấu", "Lầu"),
)
_LOWLAND = (
    ("Tân", "Phú", "Bình", "An", "Mỹ", "Hòa", "Vĩnh", "Xuân", "Đông", "Trung", "Phước", "Thạnh"),
    ("Lợi", "Thành", "Hưng", "Thịnh", "Lộc", "Hải", "Sơn", "Giang", "Long", "Thọ", "Tiến", "Hiệp"),
)
_LAST_UPLAND, _FIRST_SOUTHERN = "20", "70"
BAN_4_VANH = "Bản 4 Vành"
"""A real village of the published figures, the only one here whose name is not generated."""


def person(seed: Seed, gender: str) -> str:
    """Return a full name, labelled."""
    parts = seed.one(_FAMILY), seed.one(_MIDDLE[gender]), seed.one(_GIVEN[gender])
    return f"{' '.join(parts)} {SAMPLE}"


def villages(seed: Seed, province: str, *, urban: bool, count: int) -> list[tuple[str, str]]:
    """Return name and type of the villages of one commune, each name once, not yet labelled."""
    southern = province >= _FIRST_SOUTHERN
    if urban:
        kind, name = ("khóm", "Khóm") if southern else ("tổ dân phố", "Tổ dân phố số")
        return [(f"{name} {n}", kind) for n in range(1, count + 1)]
    upland = "01" < province <= _LAST_UPLAND
    pairs = [" ".join(pair) for pair in product(*(_UPLAND if upland else _LOWLAND))]
    rare = "bản" if upland else "thôn"
    names = []
    for n, name in enumerate(seed.random.sample(pairs, min(count, len(pairs)))):
        kind = "ấp" if southern else rare if n % 3 == 0 else "thôn"
        names.append((f"{kind.capitalize()} {name}", kind))
    usual = "ấp" if southern else "thôn"
    names += [(f"{usual.capitalize()} {n}", usual) for n in range(1, count - len(names) + 1)]
    return names
