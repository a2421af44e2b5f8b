def half(number):
    if number % 2:
        raise ValueError(f"{number} cannot be halved")
    return number // 2


with open(snakemake.output[0], "w") as file:
    file.write(str(half(7)))
