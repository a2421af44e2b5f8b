rule write:
    output:
        "out/{name}.txt",
    shell:
        "echo slowly {wildcards.name} > {output}"


rule write_quickly:
    output:
        "out/{name}.txt",
    params:
        word=lambda wildcards: marked(wildcards.name),
    shell:
        "echo {params.word:q} > {output}"


use rule write_quickly as shout with:
    output:
        "shout.txt",
    params:
        word="SHOUT",
