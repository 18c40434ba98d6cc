# Writes p256/constants.rs: python3 generate/p256.py > p256/constants.rs
p=2**256-2**224+2**192+2**96-1
n=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
gx=0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296; gy=0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5
assert (gy*gy-gx**3+3*gx-b)%p==0
assert pow(3,p-1,p)==1 and pow(3,n-1,n)==1
assert (-pow(p,-1,2**52))%2**52==1
def limbs(v,c=5,w=52):
    r=[(v>>(w*i))&(2**w-1) for i in range(c)]; assert sum(x<<(w*i) for i,x in enumerate(r))==v; return r
def out(name,v,c=5,w=52,doc=""):
    if doc: print("/// "+doc)
    print(f"pub(crate) const {name}: [u64; {c}] = [{', '.join(hex(x) for x in limbs(v,c,w))}];")
def word(name,v,doc=""):
    if doc: print("/// "+doc)
    print(f"pub(crate) const {name}: u64 = {hex(v)};")
print("//! Numbers of P-256, written by ../generate/p256.py: do not edit.")
out("P52",p,doc="p in radix 2^52"); out("P62",p,5,62); word("PINV62",pow(p,-1,2**62),"1/p mod 2^62")
q=limbs(p+1); assert q[0]==0 and q[2]==0
word("Q1",q[1],"p + 1 in radix 2^52; limbs 0 and 2 are zero"); word("Q3",q[3]); word("Q4",q[4])
out("ONE",2**260%p,doc="2^260 mod p: one in Montgomery form"); out("R2_P",pow(2,520,p),doc="2^520 mod p"); out("R3_P",pow(2,780,p),doc="2^780 mod p")
out("N52",n,doc="n in radix 2^52"); out("N62",n,5,62); word("NINV62",pow(n,-1,2**62),"1/n mod 2^62")
word("N0INV52",(-pow(n,-1,2**52))%2**52,"-1/n mod 2^52"); out("R2_N",pow(2,520,n),doc="2^520 mod n")
out("N64",n,4,64); out("NHALF64",n//2,4,64,doc="(n-1)/2"); out("P_MINUS_N64",p-n,4,64)
out("GX64",gx,4,64); out("GY64",gy,4,64)
