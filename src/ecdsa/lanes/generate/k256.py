# Writes constants.rs: python3 generate/k256.py > k256/constants.rs
p=2**256-2**32-977
n=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
lam=0x5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72
beta=0x7ae96a2b657c07106e64479eac3434e99cf0497512f58995c1396c28719501ee
a1=0x3086d221a7d46bcde86c90e49284eb15; b1=-0xe4437ed6010e88286f547fa90abfe4c3
a2=0x114ca50f7a8e2f3f657c1108d9d44cfd8; b2=a1
assert pow(lam,3,n)==1 and pow(beta,3,p)==1 and lam!=1
assert (a1+b1*lam)%n==0 and (a2+b2*lam)%n==0 and a1*b2-a2*b1==n
assert a1%2==1 and b1%2==1 and a2%2==0 and b2%2==1
def limbs(v,c=5,w=52): 
    r=[(v>>(w*i))&(2**w-1) for i in range(c)]; assert sum(x<<(w*i) for i,x in enumerate(r))==v; return r
def out(name,v,c=5,w=52,doc=""):
    if doc: print("/// "+doc)
    print(f"pub(crate) const {name}: [u64; {c}] = [{', '.join(hex(x) for x in (limbs(v,c,w) if not isinstance(v,list) else v))}];")
print("//! Numbers of secp256k1, written by ../generate/k256.py: do not edit.")
out("P52",p,doc="p in radix 2^52"); out("P64",p,4,64); out("N52",n,doc="n in radix 2^52"); out("N64",n,4,64); out("NHALF64",n//2,4,64,doc="(n-1)/2")
out("P_MINUS_N64",p-n,4,64)
gx=0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798; gy=0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8
assert (gy*gy-gx**3-7)%p==0
out("GX64",gx,4,64); out("GY64",gy,4,64); out("BETA52",beta)
def bias(k):
    N=sum((1<<k)<<(52*i) for i in range(5)); d=(-N)%p; l=limbs(d); r=[(1<<k)+x for x in l]
    assert sum(x<<(52*i) for i,x in enumerate(r))%p==0; return r
for k in (53,57,58,60): out(f"BIAS{k}",bias(k),doc=f"multiple of p, every limb in [2^{k}, 2^{k}+2^52)")
print(f"pub(crate) const C: u64 = {hex(2**32+977)};\npub(crate) const R260: u64 = {hex(16*(2**32+977))};")
print(f"pub(crate) const N0INV52: u64 = {hex((-pow(n,-1,2**52))%2**52)};")
out("R2_N",pow(2,520,n),doc="2^520 mod n")
out("G1",(2**364*b2*2+n)//(2*n),doc="round(2^364*b2/n)"); out("G2",(2**364*-b1*2+n)//(2*n),doc="round(2^364*(-b1)/n)")
out("NA1",2**156-a1,3,doc="-a1 mod 2^156 (= -b2)"); out("NA2",2**156-a2,3); out("MB1",-b1,3)
print(f"pub(crate) const NINV62: u64 = {hex(pow(n,-1,2**62))};"); out("N62",n,5,62)
